"""``eksim run`` as a user runs it: what it prints, what it writes, its exit codes, Ctrl-C."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import eksim
from eksim.record.tables import TABLES

ROOT = Path(__file__).parents[2]
LAB = ROOT / "scenarios" / "lab.yaml"


def run(*arguments, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "eksim", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    out = run("run", LAB, cwd=folder)
    return folder, out


def test_the_lab_prints_its_story_and_the_cause(finished):
    _, out = finished
    assert (out.returncode, out.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in out.stdout.split("\n")]
    assert any("36 pods: 34 Running, 2 Pending" in line for line in lines)
    assert any("9 pods: 9 Running" in line for line in lines)
    assert (
        "Warning FailedScheduling 52s (x4 over 3m13s) default-scheduler 0/2 nodes are available: 2 Too many pods."
        in lines
    )
    assert lines[-3].startswith(
        "Cause (at 0:16:52.7): 34 of 34 pod slots used: max-pods 17 per t3.medium; addresses: 30 of 30"
    )
    assert lines[-2] == "Results: results/lab"


def test_results_are_whole_and_read_back(finished):
    folder, _ = finished
    target = folder / "results" / "lab"
    assert sorted(p.name for p in target.iterdir()) == sorted(
        [*(f"{t}.parquet" for t in TABLES), "summary.json", "looks.txt", "run.png", "run.svg"]
    )
    assert [p.name for p in (folder / "results").iterdir()] == ["lab"]
    result = eksim.Result.load(target)
    for name, columns in TABLES.items():
        assert list(result.table(name).columns) == [c.name for c in columns]
        assert len(result.table(name)) == result.summary["rows"][name] > 0
    enis = result.enis
    assert set(enis["device"]) == {"eth0", "eth1", "eth2"}
    kept = enis[enis["detached_s"].isna()]
    assert len(kept) == 3
    addresses = result.addresses
    assert (addresses["total"] == addresses["assigned"] + addresses["warm"] + addresses["cooling"]).all()
    assert result.summary["versions"]["eksim"] == eksim.__version__
    assert result.complete


def test_python_and_command_line_agree(finished):
    folder, _ = finished
    loaded = eksim.Result.load(folder / "results" / "lab")
    again = eksim.run(LAB)
    for name in TABLES:
        assert again.table(name).equals(loaded.table(name)), name


def test_json_for_programs(tmp_path):
    out = run("run", LAB, "-o", "json", "--no-results", "--seed", 3, cwd=tmp_path)
    summary = json.loads(out.stdout)
    assert (out.returncode, summary["seed"], summary["complete"], summary["failures"]) == (0, 3, True, [])
    assert not list(tmp_path.iterdir())


def test_quiet_prints_nothing(tmp_path):
    out = run("run", LAB, "-q", "--no-picture", cwd=tmp_path)
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")


def test_a_failed_expectation_exits_1_with_expected_against_actual(tmp_path):
    text = LAB.read_text().replace("pods: {total: 36, Running: 34, Pending: 2}", "pods: {total: 36, Running: 36}")
    for part in (LAB.parent / "manifests").iterdir():
        (tmp_path / "manifests").mkdir(exist_ok=True)
        (tmp_path / "manifests" / part.name).write_text(part.read_text())
    (tmp_path / "wrong.yaml").write_text(text)
    out = run("run", "wrong.yaml", "-q", cwd=tmp_path)
    assert out.returncode == 1
    assert "(why): pods Running: expected 36, got 34" in out.stderr


def _digest(folder, env):
    script = (
        "import hashlib, eksim; from eksim.record.tables import TABLES\n"
        f"r = eksim.run({str(LAB)!r}, seed=5)\n"
        "print(hashlib.sha256(repr([r.rows(t) for t in TABLES]).encode()).hexdigest())"
    )
    out = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **env},
        check=True,
    )
    return out.stdout


def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed(tmp_path):
    digests = {_digest(tmp_path, {"PYTHONHASHSEED": seed}) for seed in ("0", "1", "4242")}
    assert len(digests) == 1
    here = eksim.run(LAB, seed=5)
    rows = repr([here.rows(t) for t in TABLES])
    assert digests == {hashlib.sha256(rows.encode()).hexdigest() + "\n"}


LONG = """\
apiVersion: eksim/v1
kind: Scenario
name: long
cluster:
  subnets: [{name: a, zone: us-east-1a, cidr: 10.0.0.0/20}]
  nodeGroups: [{name: ng, instanceType: t3.medium, size: 2}]
"""


def test_ctrl_c_keeps_partial_results_and_marks_them(tmp_path):
    # pods come and go for so long that the signal arrives in the middle
    steps = "".join(
        f"  - at: {10 + i}s\n    scale: {{deployment: web, replicas: {20 + i % 2}}}\n" for i in range(60_000)
    )
    manifest = (
        "  - manifest: {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: "
        "{matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: 'i:1'}]}}}}\n"
    )
    whole = steps[:1_900_000].rpartition("  - at")[0]
    (tmp_path / "long.yaml").write_text(LONG + "workloads:\n" + manifest + "steps:\n" + whole)
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "playing\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "interrupted; partial results are marked incomplete" in stderr
    result = eksim.Result.load(tmp_path / "results" / "long")
    assert not result.complete
    assert len(result.pods) > 0


#: The command as it is, saying when the steps have begun.
_INTERRUPTED = """
import signal, sys
# a shell's background job is started with SIGINT ignored, and its children are too
signal.signal(signal.SIGINT, signal.default_int_handler)
from eksim.play import steps
act = steps.Player.act
def told(self, index, step):
    if index == 50:
        print("playing", flush=True)
    return act(self, index, step)
steps.Player.act = told
sys.argv = ["eksim", "run", "long.yaml"]
from eksim.cli.main import entry_point
entry_point()
"""


def test_help_and_version_do_not_import_the_heavy_libraries():
    script = (
        "import sys; sys.argv = ['eksim', '--help']\n"
        "from eksim.cli.main import entry_point\n"
        "try: entry_point()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pandas', 'matplotlib', 'pyarrow', 'pydantic', 'numpy', 'simpy', 'rich.table') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip().split("\n")[-1] == "[]"


def test_the_shipped_schema_is_the_one_printed(tmp_path):
    out = run("schema", cwd=tmp_path)
    assert out.stdout == (ROOT / "scenarios" / "scenario.schema.json").read_text()


WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
    },
}


def scenario(folder, steps, template=None, **more):
    web = json.loads(json.dumps(WEB))
    web["spec"]["template"]["spec"].update(template or {})
    document = {
        "apiVersion": "eksim/v1",
        "kind": "Scenario",
        "name": "short",
        "cluster": {
            "kubernetesVersion": "1.34",
            "subnets": [{"name": "a", "zone": "us-east-1a", "cidr": "10.0.0.0/24"}],
            "nodeGroups": [{"name": "ng", "instanceType": "t3.medium", "size": 1}],
        },
        "workloads": [{"manifest": web}],
        "steps": steps,
        **more,
    }
    path = folder / "short.yaml"
    path.write_text(json.dumps(document))
    return path


def test_what_came_before_a_step_that_cannot_be_done_is_kept(tmp_path):
    path = scenario(tmp_path, [{"until": "deployment/web available"}, {"until": "pod/nobody ready", "timeout": "10s"}])
    out = run("run", path, "--no-picture", cwd=tmp_path)
    assert out.returncode == 2
    (said,) = out.stderr.strip().split("\n")
    assert said.endswith(" (what came before is in results/short, marked incomplete)")
    assert "steps[1]: 'pod/nobody ready' did not come about within 10 s" in said
    result = eksim.Result.load(tmp_path / "results" / "short")
    assert not result.complete
    assert result.summary["pods"]["Running"] == 7


def test_a_circle_without_latency_is_named_and_left(tmp_path):
    # The pods go by themselves to a node that has no room for them, are refused, and replaced at once.
    found = scenario(tmp_path, [])
    names = json.loads(run("run", found, "-o", "json", "--no-results", cwd=tmp_path).stdout)["nodes"]
    path = scenario(tmp_path, [], {"nodeName": names[0]["node"]}, latency="none")
    text = path.read_text().replace('"replicas": 3', '"replicas": 20')
    path.write_text(text)
    out = run("run", path, "--no-picture", "-q", cwd=tmp_path)
    assert out.returncode == 2
    assert "has refused 10,000 pods in one instant" in out.stderr
    assert "Traceback" not in out.stderr
    assert not eksim.Result.load(tmp_path / "results" / "short").complete
