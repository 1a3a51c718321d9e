"""Bad input: one clear message naming file, line, field, what was expected and the nearest valid value; exit 2."""

import subprocess
import sys
import textwrap

import pytest

GOOD = """\
apiVersion: eksim/v1
kind: Scenario
name: small
cluster:
  subnets:
    - {name: a, zone: us-east-1a, cidr: 10.0.0.0/24}
  nodeGroups:
    - name: ng
      instanceType: t3.medium
      size: 1
workloads:
  - manifest:
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: web}
      spec:
        replicas: 2
        selector: {matchLabels: {app: web}}
        template:
          metadata: {labels: {app: web}}
          spec:
            containers:
              - {name: web, image: "nginx:1.25"}
steps:
  - at: 60s
    scale: {deployment: web, replicas: 3}
"""


def eksim(*arguments, cwd=None, stdin=None):
    return subprocess.run(
        [sys.executable, "-m", "eksim", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=stdin,
        check=False,
    )


def refused(tmp_path, text, *said):
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    out = eksim("run", file.name, cwd=tmp_path)
    assert out.returncode == 2, out.stderr + out.stdout
    assert "Traceback" not in out.stderr
    assert len(out.stderr.strip().split("\n")) == 1, out.stderr
    for part in said:
        assert part in out.stderr, out.stderr
    assert not (tmp_path / "results").exists()
    return out.stderr


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("t3.medium", "t3.medum", ("scenario.yaml:9: cluster.nodeGroups[0].instanceType", "did you mean t3.medium?")),
        ("10.0.0.0/24", "10.0.0.0/30", ("scenario.yaml:6: cluster.subnets[0].cidr", "too small", "10.0.0.0/28")),
        ("10.0.0.0/24", "10.9.0.0/15", ("scenario.yaml:6", "is not an IPv4 CIDR")),
        ("10.0.0.0/24", "192.168.0.0/24", ("outside the VPC", "10.0.0.0/16")),
        (
            "    - {name: a, zone: us-east-1a, cidr: 10.0.0.0/24}\n",
            "    - {name: a, zone: us-east-1a, cidr: 10.0.0.0/24}\n    - {name: b, zone: us-east-1b, cidr: 10.0.0.128/25}\n",
            ("scenario.yaml:7: cluster.subnets[1].cidr", "overlaps 10.0.0.0/24"),
        ),
        (
            "      size: 1\n",
            "      size: 1\n      maxPods: 1\n",
            ("scenario.yaml:11", "maxPods", "at least the 2 daemon pods", "did you mean 2?"),
        ),
        (
            "      size: 1\n",
            "      size: -1\n",
            ("scenario.yaml:10: cluster.nodeGroups[0].size: is -1", "did you mean 0?"),
        ),
        ("replicas: 3", "replicas: -3", ("scenario.yaml:26: steps[0].scale.replicas: is -3", "did you mean 0?")),
        (
            "        replicas: 2",
            "        replicas: -2",
            ("scenario.yaml:17: workloads[0].manifest.spec.replicas: is -2",),
        ),
        (
            "nodeGroups:",
            "nodeGroup:",
            ("scenario.yaml:7: cluster.nodeGroup: unknown field", "did you mean nodeGroups?"),
        ),
        ("size: 1", "sice: 1", ("cluster.nodeGroups[0].sice: unknown field", "did you mean size?")),
        (
            "kind: Deployment",
            "kind: Deploymnet",
            ("scenario.yaml:14", "kind 'Deploymnet' is not supported", "did you mean Deployment?"),
        ),
        ("kind: Deployment", "kind: CronTab", ("kind 'CronTab' is not supported", "Deployment")),
        ("at: 60s", "at: 60 parsecs", ("scenario.yaml:25: steps[0].at", "is not a duration such as 90s")),
        ("at: 60s", "at: 60", ("has no unit", "60s")),
        ("at: 60s", "at: -5s", ("is negative",)),
        ("kind: Scenario", "kind: Scenery", ("scenario.yaml:2: kind: kind is 'Scenery'", "kind: Scenario")),
        ("apiVersion: eksim/v1", "apiVersion: eksim/v9", ("scenario.yaml:1: apiVersion", "eksim/v1")),
        (
            "app: web}}\n        template",
            "app: wed}}\n        template",
            ("selector app=wed does not match the template's labels",),
        ),
        (
            "scale: {deployment: web, replicas: 3}",
            "scales: {deployment: web}",
            ("steps[0].scales: unknown field", "did you mean scale?"),
        ),
        ("kind: Scenario", "kind: [Scenario", ("is not YAML",)),
        ("name: small\n", "name: small\n<<: {seed: 1}\n", ("scenario.yaml:4: merge keys (<<) are not read",)),
        ("name: small\n", "name: small\nname: big\n", ("scenario.yaml:4: name: stands twice",)),
        ("name: small\n", "name: small\nlatency: {ec2/Attach: 1s}\n", ("latency", "did you mean")),
        ("name: small\n", "name: small\nlatency: {ec2/DescribeSubnets: fast}\n", ("latency", "is not a duration")),
        (
            "  subnets:\n",
            "  vpcCni: {env: {WARM_IP_TARGE: 2}}\n  subnets:\n",
            ("WARM_IP_TARGE", "did you mean WARM_IP_TARGET?"),
        ),
        ("name: small\n", "name: small\nlatency: {kubelet/stop: -5s}\n", (":4: latency.kubelet/stop", "is negative")),
        ("workloads:\n  - manifest:", "workloads:\n  - imageSize: -5\n    manifest:", ("imageSize: -5 is negative",)),
        ("  subnets:\n", '  kubernetesVersion: "1.34-?"\n  subnets:\n', ("is not a version",)),
        ("  subnets:\n", "  vpcCni: {env: {ENABLE_POD_ENI: 1}}\n  subnets:\n", ("security groups for pods is not simulated",)),
        ("cidr: 10.0.0.0/24", "cidr: 10.0.0.0/24, taken: [10.0.0.9-10.0.0.5]", ("runs backwards",)),
        ("  - manifest:", f"  - file: {'x' * 300}\n  - manifest:", (":12: workloads[0].file", "does not exist")),
        ("  - manifest:", '  - file: "a\\0b"\n  - manifest:', (":12: workloads[0].file", "does not exist")),
        ("zone: us-east-1a", 'zone: ""', ("cluster.subnets[0].zone",)),
        ("  subnets:\n", '  kubernetesVersion: "0.9"\n  subnets:\n', ("kubernetesVersion", "1.21")),
        ("  subnets:\n", "  kubernetesVersion: 1.30\n  subnets:\n", ("kubernetesVersion", "in quotes")),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_expected(tmp_path, old, new, said):
    refused(tmp_path, changed(old, new), *said)


def test_the_scenario_without_a_mistake_is_valid(tmp_path):
    (tmp_path / "scenario.yaml").write_text(GOOD)
    out = eksim("validate", "scenario.yaml", cwd=tmp_path)
    assert (out.returncode, out.stderr) == (0, "")
    assert out.stdout == "scenario.yaml: valid (1 step, 0 expectations)\n"


def test_an_empty_file(tmp_path):
    refused(tmp_path, "", "scenario.yaml: is empty")
    refused(tmp_path, "# only a comment\n", "scenario.yaml: is empty")


def test_a_huge_file(tmp_path):
    refused(tmp_path, "a: " + "x" * (50 * 1024 * 1024), "is 50.0 MiB", "at most 2 MiB")


def test_a_yaml_bomb(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    refused(tmp_path, "\n".join(lines), "expands to too much")


def test_deep_nesting(tmp_path):
    refused(tmp_path, "[" * 100_000, "scenario.yaml:1")


def test_yaml_tags_are_not_obeyed(tmp_path):
    refused(tmp_path, "!!python/object/apply:os.system [true]", "is not YAML")


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "scenario.yaml").write_bytes(b"\xff\xfe\x00binary")
    out = eksim("run", "scenario.yaml", cwd=tmp_path)
    assert (out.returncode, "is not UTF-8" in out.stderr) == (2, True)
    out = eksim("run", "nowhere.yaml", cwd=tmp_path)
    assert (out.returncode, "cannot be read" in out.stderr) == (2, True)


def test_a_device_that_never_ends(tmp_path):
    out = eksim("validate", "/dev/zero", cwd=tmp_path)
    assert (out.returncode, "expected at most 2 MiB of YAML" in out.stderr) == (2, True)


def test_a_results_directory_that_is_somebody_elses_is_left_alone(tmp_path):
    (tmp_path / "scenario.yaml").write_text(GOOD)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    out = eksim("run", "scenario.yaml", "--results", "mine", cwd=tmp_path)
    assert out.returncode == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_step_that_names_what_is_not_there(tmp_path):
    text = changed("scale: {deployment: web, replicas: 3}", "scale: {deployment: wed, replicas: 3}")
    refused(tmp_path, text, "steps[0]", 'deployments.apps "wed" not found')


def test_mistakes_of_all_files_are_said_by_validate(tmp_path):
    (tmp_path / "a.yaml").write_text(changed("t3.medium", "t9.medium"))
    (tmp_path / "b.yaml").write_text(textwrap.dedent(changed("at: 60s", "at: soon")))
    out = eksim("validate", "a.yaml", "b.yaml", cwd=tmp_path)
    assert out.returncode == 2
    assert "a.yaml:9" in out.stderr
    assert "b.yaml:25" in out.stderr


def test_what_only_a_built_cluster_shows_is_said_by_validate_too(tmp_path):
    config = "scheduler: {config: {profiles: [{plugins: {score: {enabled: [{name: NodeAffinty}]}}}]}}"
    (tmp_path / "scenario.yaml").write_text(changed("  nodeGroups:", f"  {config}\n  nodeGroups:"))
    out = eksim("validate", "scenario.yaml", cwd=tmp_path)
    assert out.returncode == 2
    assert "scenario.yaml:7: cluster.scheduler.config: 'NodeAffinty'" in out.stderr
    assert "did you mean NodeAffinity?" in out.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["max-pods"],
        ["max-pods", "t3.medium", "--all"],
        ["max-pods", "t3.medium", "--cni-version", "x"],
        ["instance-types", "zz*"],
    ],
)
def test_commands_say_what_they_need(command):
    out = eksim(*command)
    assert out.returncode == 2
    assert "Traceback" not in out.stderr
