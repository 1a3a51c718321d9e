"""Hypothesis strategies for clusters, workloads, CNI settings, steps and whole scenarios.

Everything is drawn as plain documents, the same that a scenario file holds, so that what fails can be written to disk and
read by a person; :func:`loaded` turns a document into a checked scenario. Small by default, since small worlds fill up:
what is interesting happens where pod slots, addresses or a subnet run out. Sizes are parameters. Everything shrinks
towards one t3.small node, no settings and no steps. Needs the extra ``eksim[test]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from eksim.aws.faults import APIS
from eksim.catalog import types as catalog
from eksim.cni.settings import refusal_to_start
from eksim.scenario.load import LoadedScenario, load_scenario_data
from eksim.versions import CniRules

Document = dict[str, Any]

#: Types whose ENIs and addresses run out soon: 2 × 2 to 3 × 12 ENIs × addresses.
SMALL_TYPES = ("t3.small", "t3.nano", "t3.medium", "t3.large", "m5.large", "c5.xlarge")
#: Kubernetes releases between which the rules of scheduler, kubelet or controllers differ.
KUBERNETES_VERSIONS = ("1.34", "1.21", "1.23", "1.26", "1.29", "1.32", "1.33")
#: VPC CNI releases between which ipamd's rules differ.
CNI_VERSIONS = ("v1.23.1", "v1.7.5", "v1.8.0", "v1.9.0", "v1.11.4", "v1.12.6", "v1.15.0", "v1.16.3", "v1.18.5", "v1.20.4")
#: EC2's codes that a fault answers with: throttled, forbidden, broken, and the subnet's two.
CODES = (
    "RequestLimitExceeded",
    "UnauthorizedOperation",
    "InternalError",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientCidrBlocks",
)
_IMAGE = "registry.example/app:1"


def seconds(milliseconds: int) -> str:
    """A time of the scenario's form, exact: 12345 → ``12.345s``."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") + "s"


def loaded(document: Document, name: str = "drawn") -> LoadedScenario:
    """A drawn document, checked as a scenario file is. Raises InputError, which would be a mistake of a strategy."""
    return load_scenario_data(document, name)


# -- clusters -------------------------------------------------------------------------------------------------------


def instance_types(pattern: str | None = None) -> SearchStrategy[str]:
    """Names of EC2 instance types: :data:`SMALL_TYPES`, or all of the catalogue that a glob names and that can run."""
    if pattern is None:
        return st.sampled_from(SMALL_TYPES)
    found = [kind.name for kind in catalog.match(pattern) if kind.vcpu and kind.memory_mib]
    return st.sampled_from(found)


@st.composite
def subnets(
    draw: st.DrawFn, max_count: int = 2, prefix_lengths: Sequence[int] = (24, 26, 27), max_taken: int = 8, zones: int = 1
) -> list[Document]:
    """Subnets of 10.0.0.0/16 that do not overlap; others hold up to ``max_taken`` addresses of each."""
    rows = []
    for i in range(draw(st.integers(1, max_count))):
        length = draw(st.sampled_from(list(prefix_lengths)))
        row: Document = {"name": f"s{i}", "zone": f"us-east-1{'abcdef'[i % zones]}", "cidr": f"10.0.{i}.0/{length}"}
        taken = draw(st.integers(0, max_taken))
        if taken:
            row["taken"] = taken
        rows.append(row)
    return rows


def cni_versions() -> SearchStrategy[str]:
    """Releases of the VPC CNI."""
    return st.sampled_from(CNI_VERSIONS)


def kubernetes_versions() -> SearchStrategy[str]:
    """Releases of Kubernetes."""
    return st.sampled_from(KUBERNETES_VERSIONS)


def cni_settings(version: str = CNI_VERSIONS[0], *, prefixes: bool = True, cooldown: bool = True) -> SearchStrategy[Document]:
    """An environment of aws-node with which this release starts, under the real names; mostly few variables.

    ``prefixes``: prefix delegation too, where the release has it; ``cooldown``: IP_COOLDOWN_PERIOD too.
    """
    rules = CniRules.of(version)
    numbers: dict[str, SearchStrategy[int]] = {
        "WARM_ENI_TARGET": st.integers(0, 2),
        "WARM_IP_TARGET": st.integers(0, 5),
        "MINIMUM_IP_TARGET": st.integers(0, 12),
        "MAX_ENI": st.integers(1, 3),
    }
    flags = ["AWS_MANAGE_ENIS_NON_SCHEDULABLE"] if rules.cordon_stops_growth else []
    if rules.prefix_delegation and prefixes:
        numbers["WARM_PREFIX_TARGET"] = st.integers(0, 2)
        flags.append("ENABLE_PREFIX_DELEGATION")
    if rules.cooldown_setting and cooldown:
        numbers["IP_COOLDOWN_PERIOD"] = st.sampled_from((30, 0, 5, 29, 31, 60))
    if rules.subnet_discovery:
        flags.append("ENABLE_SUBNET_DISCOVERY")
    values = {name: numbers_.map(str) for name, numbers_ in numbers.items()}
    values |= {name: st.sampled_from(("true", "false")) for name in flags}
    return st.fixed_dictionaries({}, optional=values).filter(lambda env: not refusal_to_start(env, rules))


@st.composite
def clusters(
    draw: st.DrawFn,
    *,
    max_groups: int = 2,
    max_nodes: int = 3,
    types: SearchStrategy[str] | None = None,
    nets: SearchStrategy[list[Document]] | None = None,
    kubernetes: SearchStrategy[str] | None = None,
    cni: SearchStrategy[str] | None = None,
    settings: bool = True,
) -> Document:
    """A scenario's ``cluster``: versions, subnets, VPC CNI with settings, node groups (``max_nodes`` in all).

    ``types``, ``nets``, ``kubernetes``, ``cni``: strategies to draw from instead; ``settings``: aws-node's environment too.
    """
    version = draw(cni_versions() if cni is None else cni)
    vpc_cni: Document = {"version": version}
    if settings:
        env = draw(cni_settings(version))
        if env:
            vpc_cni["env"] = env
    groups = []
    left = max_nodes
    for i in range(draw(st.integers(1, max_groups))):
        size = draw(st.integers(1, max(left, 1)))
        group: Document = {
            "name": f"g{i}",
            "instanceType": draw(instance_types() if types is None else types),
            "size": size,
        }
        slots = draw(st.sampled_from((None, None, None, 4, 30)))
        if slots is not None:
            group["maxPods"] = slots
        groups.append(group)
        left -= size
        if left <= 0:
            break
    document: Document = {
        "kubernetesVersion": draw(kubernetes_versions() if kubernetes is None else kubernetes),
        "subnets": draw(subnets() if nets is None else nets),
        "vpcCni": vpc_cni,
        "nodeGroups": groups,
    }
    replicas = draw(st.integers(0, 2))
    if replicas != 2:
        document["addons"] = {"coredns": {"replicas": replicas}}
    return document


# -- workloads ------------------------------------------------------------------------------------------------------


@st.composite
def pod_specs(draw: st.DrawFn, *, host_network: bool = False, max_cpu_m: int = 500) -> Document:
    """A pod's spec of one container, mostly without requests; ``host_network``: on the host's network now and then."""
    container: Document = {"name": "c", "image": _IMAGE}
    requests: Document = {}
    cpu = draw(st.sampled_from((0, 0, 50, 100, 250, 500)))
    if cpu:
        requests["cpu"] = f"{min(cpu, max_cpu_m)}m"
    if draw(st.booleans()):
        requests["memory"] = draw(st.sampled_from(("16Mi", "100Mi")))
    if requests:
        container["resources"] = {"requests": requests}
    spec: Document = {"containers": [container]}
    grace = draw(st.sampled_from((None, 0, 1, 30)))
    if grace is not None:
        spec["terminationGracePeriodSeconds"] = grace
    if host_network and draw(st.booleans()):
        spec["hostNetwork"] = True
    return spec


def _template(name: str, spec: Document) -> Document:
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def _manifest(kind: str, name: str, spec: Document) -> Document:
    return {
        "apiVersion": "v1" if kind == "Pod" else "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


@st.composite
def pods(draw: st.DrawFn, name: str = "pod", specs: SearchStrategy[Document] | None = None) -> Document:
    """A bare pod's manifest."""
    return _manifest("Pod", name, draw(pod_specs() if specs is None else specs))


@st.composite
def deployments(
    draw: st.DrawFn, name: str = "web", max_replicas: int = 12, specs: SearchStrategy[Document] | None = None
) -> Document:
    """A Deployment's manifest."""
    replicas = draw(st.integers(0, max_replicas))
    template = _template(name, draw(pod_specs() if specs is None else specs))
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return _manifest("Deployment", name, spec)


@st.composite
def daemon_sets(draw: st.DrawFn, name: str = "agent", specs: SearchStrategy[Document] | None = None) -> Document:
    """A DaemonSet's manifest; its pods may be on the host's network."""
    template = _template(name, draw(pod_specs(host_network=True) if specs is None else specs))
    return _manifest("DaemonSet", name, {"selector": {"matchLabels": {"app": name}}, "template": template})


@st.composite
def workloads(draw: st.DrawFn, manifests: SearchStrategy[Document]) -> Document:
    """A scenario's workload: a manifest, and now and then what it cannot say of its process and image."""
    beside = st.fixed_dictionaries(
        {},
        optional={
            "onTerm": st.sampled_from(("exits", "ignores")),
            "imageSize": st.sampled_from(("1Mi", "500Mi")),
            "timeToReady": st.sampled_from(("0s", "3s")),
        },
    )
    return {"manifest": draw(manifests), **draw(beside)}


# -- faults and steps -----------------------------------------------------------------------------------------------


@st.composite
def refusals(draw: st.DrawFn, apis: Sequence[str] = APIS) -> Document:
    """A fault by which EC2 (or instance metadata) refuses calls: so many, for a time, or a share of them."""
    fault: Document = {"api": draw(st.sampled_from(list(apis))), "code": draw(st.sampled_from(CODES))}
    bound = draw(st.sampled_from(("count", "for", "rate")))
    if bound == "count":
        fault["count"] = draw(st.integers(1, 4))
    else:
        fault["for"] = seconds(1000 * draw(st.integers(1, 120)))
    if bound == "rate":
        fault["rate"] = draw(st.sampled_from((0.2, 0.5)))
    return fault


def losses() -> SearchStrategy[Document]:
    """A fault by which others take or give addresses of subnets, or attach an ENI, on every node where that can be."""
    return st.one_of(
        st.fixed_dictionaries({"takeAddresses": st.integers(1, 40)}),
        st.fixed_dictionaries({"releaseAddresses": st.integers(1, 40)}),
        st.fixed_dictionaries({"loseAddresses": st.integers(1, 4), "device": st.integers(0, 2)}),
        st.fixed_dictionaries({"loseEni": st.integers(1, 2)}),
        st.fixed_dictionaries({"attachEni": st.integers(0, 1)}),
    )


@st.composite
def steps(
    draw: st.DrawFn,
    cluster: Document,
    deployment_names: Sequence[str] = (),
    *,
    max_steps: int = 8,
    max_gap_ms: int = 90_000,
    faults: bool = True,
) -> list[Document]:
    """Steps of a scenario on ``cluster``, at rising times: scale, pods that come and go, nodes, settings, cordons, faults."""
    version = cluster["vpcCni"]["version"]
    groups = [group["name"] for group in cluster["nodeGroups"]]
    bare: list[str] = []
    made = 0
    at = 30_000
    rows: list[Document] = []
    kinds = ["pod", "pod", "env", "cordon", "uncordon", "nodes", "wait"]
    if deployment_names:
        kinds += ["scale", "scale", "scale"]
    if faults:
        kinds += ["refuse", "lose"]
    for _ in range(draw(st.integers(0, max_steps))):
        at += draw(st.integers(0, max_gap_ms))
        step: Document = {"at": seconds(at)}
        kind = draw(st.sampled_from([*kinds, "delete"] if bare else kinds))
        if kind == "scale":
            name = draw(st.sampled_from(list(deployment_names)))
            step["scale"] = {"deployment": name, "replicas": draw(st.integers(0, 20))}
        elif kind == "pod":
            step["apply"] = draw(workloads(pods(f"pod-{made}")))
            bare.append(f"pod-{made}")
            made += 1
        elif kind == "delete":
            step["delete"] = f"pod/{bare.pop(draw(st.integers(0, len(bare) - 1)))}"
        elif kind == "env":
            step["setEnv"] = {"env": draw(cni_settings(version).filter(bool))}
        elif kind in ("cordon", "uncordon"):
            step[kind] = "0"
        elif kind == "nodes":
            step["addNodes"] = {"nodeGroup": draw(st.sampled_from(groups))}
        elif kind == "refuse":
            step["fault"] = draw(refusals())
        elif kind == "lose":
            step["fault"] = draw(losses())
        else:
            step["note"] = "a pause"
        rows.append(step)
    return rows


def latencies() -> SearchStrategy[str]:
    """A scenario's ``latency``: none, or the defaults."""
    return st.sampled_from(("none", "default"))


@st.composite
def scenarios(
    draw: st.DrawFn,
    *,
    cluster: SearchStrategy[Document] | None = None,
    max_deployments: int = 2,
    max_steps: int = 8,
    latency: SearchStrategy[str] | None = None,
    faults: bool = True,
) -> Document:
    """A whole scenario, as its file holds it: a cluster, up to ``max_deployments`` Deployments, perhaps a DaemonSet, steps.

    It runs at least two minutes after its last step and expects every invariant to hold then, those of its history too.
    """
    chosen = draw(clusters() if cluster is None else cluster)
    names = [f"web-{i}" for i in range(draw(st.integers(0, max_deployments)))]
    applied = [draw(workloads(deployments(name))) for name in names]
    if draw(st.booleans()):
        applied.append(draw(workloads(daemon_sets())))
    rows = draw(steps(chosen, names, max_steps=max_steps, faults=faults))
    last = rows[-1]["at"] if rows else "0s"
    end = seconds(round(float(last[:-1]) * 1000) + 120_000)
    document: Document = {
        "apiVersion": "eksim/v1",
        "kind": "Scenario",
        "name": "drawn",
        "seed": draw(st.integers(0, 1000)),
        "latency": draw(latencies() if latency is None else latency),
        "cluster": chosen,
        "runFor": end,
        "expect": [{"at": end, "invariants": "history"}],
    }
    if applied:
        document["workloads"] = applied
    if rows:
        document["steps"] = rows
    return document
