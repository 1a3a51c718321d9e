"""What the API server would refuse of a manifest, a step or a scheduler's configuration is refused at the door, by its place."""

import pytest

from eksim.errors import InputError
from eksim.play.run import play
from eksim.scenario.load import load_scenario_text
from eksim.scenario.looks import parse_look

GOOD = """\
apiVersion: eksim/v1
kind: Scenario
name: small
cluster:
  subnets:
    - {name: a, zone: us-east-1a, cidr: 10.0.0.0/24}
  nodeGroups:
    - {name: ng, instanceType: t3.medium, size: 1}
    - {name: other, instanceType: t3.medium, size: 0}
  scheduler:
    config:
      percentageOfNodesToScore: 50
      profiles:
        - plugins: {score: {disabled: [{name: ImageLocality}]}}
          pluginConfig:
            - name: InterPodAffinity
              args: {hardPodAffinityWeight: 5}
workloads:
  - manifest:
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: web}
      spec:
        replicas: 2
        strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%}}
        selector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: In, values: [web]}]}
        template:
          metadata: {labels: {app: web}}
          spec:
            tolerations: [{key: a, operator: Exists}]
            topologySpreadConstraints:
              - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
            affinity:
              podAntiAffinity:
                preferredDuringSchedulingIgnoredDuringExecution:
                  - {weight: 10, podAffinityTerm: {topologyKey: zone}}
            volumes: [{name: v, emptyDir: {}}]
            containers:
              - name: web
                image: nginx
                env: [{name: A, value: "1"}]
                ports: [{containerPort: 80}]
                readinessProbe: {periodSeconds: 5, tcpSocket: {port: 80}}
                resources: {requests: {cpu: 100m}}
steps:
  - {scale: {deployment: web, replicas: 3}}
  - {fault: {takeAddresses: 3, subnet: a}}
  - {addNodes: {nodeGroup: ng}}
  - {removeNodes: {nodeGroup: ng, count: 1}, after: 60s}
  - {delete: deployment/web}
  - {until: settled}
expect:
  - pods: {Running: 4}
"""
SPEC = "workloads[0].manifest.spec"
POD = f"{SPEC}.template.spec"


def refusal(old, new, do=load_scenario_text):
    assert GOOD.count(old) == 1, old
    with pytest.raises(InputError) as caught:
        do(GOOD.replace(old, new), "s.yaml")
    error = caught.value
    assert error.file == "s.yaml"
    assert error.line == GOOD[: GOOD.index(old)].count("\n") + 1
    return error


def test_it_is_good_without_a_mistake():
    load_scenario_text(GOOD, "s.yaml")
    load_scenario_text(GOOD.replace("takeAddresses: 3, subnet: a", "attachEni: 0"), "s.yaml")


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("kind: Deployment", "kind: [Deployment]", "workloads[0].manifest.kind", "not supported"),
        ("template:\n", "template: []\n        x:\n", f"{SPEC}.template", "is []; expected a mapping"),
        ("metadata: {labels: {app: web}}", "metadata: text", f"{SPEC}.template.metadata", "is 'text'"),
        ("maxSurge: 25%", "maxSurge: many", f"{SPEC}.strategy.rollingUpdate.maxSurge", "a percentage such as 25%"),
        ("type: RollingUpdate", "type: Rolling", f"{SPEC}.strategy.type", "did you mean RollingUpdate?"),
        ("values: [web]", "values: [db]", f"{SPEC}.selector", "does not select the template's labels"),
        ("operator: In", "operator: in", f"{SPEC}.selector.matchExpressions[0].operator", "did you mean In?"),
        ("operator: Exists", "operator: Exist", f"{POD}.tolerations[0].operator", "did you mean Exists?"),
        ("tolerations: [", "toleration: [", f"{POD}.toleration", "did you mean tolerations?"),
        ("maxSkew: 1", "maxSkew: 0", f"{POD}.topologySpreadConstraints[0].maxSkew", "is 0; expected 1 or more"),
        ("topologyKey: zone, ", "", f"{POD}.topologySpreadConstraints[0]", "lacks 'topologyKey'"),
        ("weight: 10", "weight: a", "podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight", "1 to 100"),
        ("emptyDir: {}", "emptyDir: 3", f"{POD}.volumes[0].emptyDir", "is 3; expected a mapping"),
        ('value: "1"', "value: 1", f"{POD}.containers[0].env[0].value", 'in quotes); did you mean "1"?'),
        ("containerPort: 80", "containerPort: 80.5", f"{POD}.containers[0].ports[0].containerPort", "1 to 65535"),
        ("periodSeconds: 5", "periodSeconds: -5", f"{POD}.containers[0].readinessProbe.periodSeconds", "did you mean 0?"),
        ("requests: {cpu: 100m}", "requests: [100m]", f"{POD}.containers[0].resources.requests", "expected a mapping"),
        ("percentageOfNodesToScore: 50", "percentageOfNodesToScore: half", "percentageOfNodesToScore", "a whole number"),
        ("score: {dis", "scores: {dis", "cluster.scheduler.config.profiles[0].plugins.scores", "did you mean score?"),
        ("{hardPodAffinityWeight: 5}", "[5]", "cluster.scheduler.config.profiles[0].pluginConfig[0].args", "a mapping"),
        ("scale: {deployment: web, ", "scale: {", "steps[0].scale", "needs either deployment or replicaset"),
        ("subnet: a}", "subnet: b}", "steps[1].fault.subnet", "unknown subnet 'b'; expected one of a"),
        ("takeAddresses: 3", "device: 3", "steps[1].fault", "breaks nothing"),
        ("takeAddresses: 3", "takeAddresses: 3, loseEni: 1", "steps[1].fault", "breaks 2 things"),
        ("addNodes: {nodeGroup: ng}", "addNodes: {nodeGroup: nh}", "steps[2].addNodes.nodeGroup", "one of ng, other"),
        ("addNodes: {nodeGroup: ng}", "addNodes: {}", "steps[2].addNodes", "does not say which group"),
        ("removeNodes: {nodeGroup: ng, ", "removeNodes: {", "steps[3].removeNodes", "does not say which"),
        ("delete: deployment/web", "delete: deploymnt/web", "steps[4].delete", "did you mean deployment?"),
        ("until: settled", "until: service/web gone", "steps[5].until", "pod, deployment, replicaset or daemonset"),
        ("Running: 4", "Running: many", "expect[0].pods.Running", 'is "many"; expected a whole number'),
        ("name: small", "name: 5", "name", 'expected text (put it in quotes); did you mean "5"?'),
        ("{until: settled}", "5", "steps[5]", "expected a mapping with name, at, after, until"),
        ("{until: settled}", "{name: x}", "steps[5]", "or an action: apply, scale, delete, setEnv, restartAwsNode"),
        ("replicas: 2", "replicas: 9876543210", f"{SPEC}.replicas", "expected 0 to 1000000; did you mean 1000000?"),
        ("Running: 4", "Runing: 4", "expect[0].pods.Runing", "did you mean Running?"),
    ],
)  # fmt: skip
def test_it_is_named_with_its_place(old, new, field, said):
    error = refusal(old, new)
    assert error.field.endswith(field)
    assert said in str(error)


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("deployment: web, ", "deployment: wed, ", "steps[0]", 'deployments.apps "wed" not found'),
        ("count: 1}", "count: 3}", "steps[3]", "count is 3, and the group has 2 nodes"),
        ("until: settled", "until: pod/x ready, timeout: 1s", "steps[5]", "did not come about within 1 s"),
    ],
)
def test_what_only_the_run_finds_has_its_place_too(old, new, field, said):
    error = refusal(old, new, lambda text, name: play(load_scenario_text(text, name), 1))
    assert error.field == field
    assert said in str(error)


def test_a_plugin_that_there_is_not():
    text = GOOD.replace("score: {disabled: [{name: ImageLocality}]}", "filter: {enabled: [{name: NodePort}]}")
    with pytest.raises(InputError, match=r"^s.yaml:11: cluster.scheduler.config: 'NodePort' is no scheduler plugin"):
        play(load_scenario_text(text, "s.yaml"), 1)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("get pods a b", "has several names"),
        ("get pod/a b", "has several names"),
        ("get pods | grep", "has 0 texts"),
        ("get pods | grep a b", "has 2 texts"),
        ("get pods | grep a -Ax", "grep -A x is not understood"),
        ("get pods | grep a -A", "grep -A  is not understood"),
    ],
)
def test_a_look_that_would_show_something_else(command, said):
    with pytest.raises(ValueError, match=said):
        parse_look(command)


def test_grep_takes_its_number_apart_or_not():
    assert parse_look("get pods | grep a -A 5") == parse_look("get pods | grep -A5 a")


@pytest.mark.parametrize("word", ["deployment/web", "deployments/web", "deploy/web", "Deployment/web"])
def test_a_kind_is_understood_as_kubectl_does(word):
    text = GOOD.replace("delete: deployment/web", f"delete: {word}").replace("removeNodes: {nodeGroup: ng, count: 1}, ", "")
    assert play(load_scenario_text(text, "s.yaml"), 1).summary["pods"]["Running"] == 6


def test_kinds_without_a_namespace_can_be_deleted():
    priority = "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 5}"
    text = GOOD.replace("workloads:\n", f"workloads:\n  - manifest: {priority}\n")
    text = text.replace("delete: deployment/web", "delete: priorityclass/high")
    assert play(load_scenario_text(text, "s.yaml"), 1).complete
