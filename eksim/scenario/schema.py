"""The scenario file's schema, version ``eksim/v1``: pydantic models, and the JSON Schema that editors complete from.

Only shapes and single values are checked here; what concerns several fields or the catalogue is in ``load.py``. The models
end in ``cluster.build``: nothing of pydantic is met inside the simulation.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from eksim.parts import Ec2Api
from eksim.units import parse_duration, parse_quantity

API_VERSION = "eksim/v1"


class Model(BaseModel):
    """Base: camelCase names, no unknown fields."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_default=False, frozen=False)


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a duration: give a text such as 90s, 5m or 1h30m")
    if isinstance(value, int | float) and value != 0:
        raise ValueError(f"{value} has no unit: give a duration such as {value}s")
    seconds = parse_duration(str(value).strip())
    if seconds < 0:
        raise ValueError(f"{value!r} is negative: a duration is 0s or more")
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(\d+(\.\d+)?(ns|us|ms|s|m|h))+$", "examples": ["90s", "5m", "1h30m"]}
    ),
]


def _bytes(value: Any) -> int:
    size = parse_quantity(value).value
    if size < 0:
        raise ValueError(f"{value!r} is negative: a size is 0 or more, such as 23Mi")
    return size


Bytes = Annotated[
    int, BeforeValidator(_bytes), WithJsonSchema({"type": ["string", "integer"], "examples": ["23Mi", "150M"]})
]


def _env_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("an environment variable is text, a number or a truth value")


EnvText = Annotated[str, BeforeValidator(_env_text), WithJsonSchema({"type": ["string", "number", "boolean"]})]


def _cidr(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not an IPv4 CIDR: {error}") from None
    return str(network)


Cidr = Annotated[str, AfterValidator(_cidr)]


def _address(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 address") from None


Address = Annotated[str, AfterValidator(_address)]


def _name(value: str) -> str:
    if len(value) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", value):
        raise ValueError(f"{value!r} is not a name: lower case letters, digits and '-', at most 63, no '-' at the ends")
    return value


Name = Annotated[str, AfterValidator(_name)]


def _version(value: Any) -> str:
    text = str(value)
    if isinstance(value, float):
        raise ValueError(f'{text} is read as a number: put the version in quotes, such as "1.30"')
    if not re.fullmatch(r"v?\d{1,4}\.\d{1,4}(\.\d{1,4})?([-+][-+.\w]*)?", text, re.ASCII):
        raise ValueError(f'{text!r} is not a version such as "1.34" or v1.23.1')
    return text


Version = Annotated[str, BeforeValidator(_version)]


class TaintModel(Model):
    """A taint of a node group's nodes."""

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Subnet(Model):
    """A subnet of the VPC."""

    name: Name
    zone: str = Field(min_length=1)
    cidr: Cidr
    tags: dict[str, str] = Field(
        default_factory=dict,
        description="EC2 tags; kubernetes.io/role/cni=1 lets ipamd use it for further ENIs of its zone.",
    )
    taken: int | list[str] = Field(
        0,
        description="Addresses held by others: a number (scattered at random by the seed), or a list of addresses, "
        "CIDRs and ranges such as 10.0.0.16-10.0.0.31.",
    )


class VpcCni(Model):
    """The VPC CNI add-on: its version and aws-node's environment under the real names."""

    version: Version = "v1.23.1"
    env: dict[str, EnvText] = Field(default_factory=dict)


class NodeEntry(Model):
    """One node of a group, where its subnet, address or moment of joining matters."""

    subnet: Name | None = None
    address: Address | None = Field(None, description="The node's primary address.")
    joins: Duration = Field(0.0, description="When its kubelet registers.")


class NodeGroup(Model):
    """Equal nodes."""

    name: Name
    instance_type: str
    size: int | None = Field(None, ge=0, le=100_000)
    subnets: list[Name] | None = Field(
        None, description="Subnets the nodes go to in turn; default all of the cluster's."
    )
    labels: dict[str, str] = Field(default_factory=dict)
    taints: list[TaintModel] = Field(default_factory=list)
    max_pods: int | None = Field(None, ge=1, description="The kubelet's max-pods; default by the AMI's formula.")
    host_network_pods: int = Field(0, ge=0, le=100, description="Further host-network pods on each node.")
    nodes: list[NodeEntry] | None = Field(None, description="One entry per node instead of size.")


class CoreDns(Model):
    """The coredns Deployment."""

    replicas: int = Field(2, ge=0, le=1_000_000)


class Addons(Model):
    """What EKS runs by default, with its real resource requests."""

    aws_node: bool = True
    kube_proxy: bool = True
    coredns: CoreDns | bool = Field(default_factory=lambda: CoreDns())


class SchedulerModel(Model):
    """The kube-scheduler."""

    starts: Duration = Field(0.0, description="When it started: the phase of its flushes.")
    config: dict[str, Any] | None = Field(None, description="A KubeSchedulerConfiguration.")


class Cluster(Model):
    """The cluster before anything happens."""

    kubernetes_version: Version = "1.34"
    region: str = Field("us-east-1", min_length=1)
    vpc_cidrs: list[Cidr] = Field(default_factory=lambda: ["10.0.0.0/16"], min_length=1)
    subnets: list[Subnet] = Field(min_length=1)
    vpc_cni: VpcCni = Field(default_factory=VpcCni)
    node_groups: list[NodeGroup] = Field(min_length=1)
    addons: Addons = Field(default_factory=Addons)
    scheduler: SchedulerModel = Field(default_factory=lambda: SchedulerModel())


class Workload(Model):
    """An ordinary Kubernetes manifest, inline or from a file, and beside it what it cannot say."""

    manifest: dict[str, Any] | None = None
    file: str | None = Field(None, description="A YAML file of one or more manifests, relative to the scenario.")
    on_term: Literal["exits", "ignores"] = Field("exits", description="Whether its process ends on SIGTERM.")
    image_size: Bytes | None = Field(None, description="Bytes pulled per image, such as 23Mi; default 50Mi.")
    time_to_ready: Duration = Field(0.0, description="From the container's start until it is ready to serve.")


class Target(Model):
    """An object by kind and name."""

    kind: str
    name: str
    namespace: str = "default"


class ScaleAction(Model):
    """kubectl scale."""

    deployment: str | None = None
    replicaset: str | None = None
    namespace: str = "default"
    replicas: int = Field(ge=0, le=1_000_000)


class RestartAwsNode(Model):
    """aws-node's container restarts: ipamd starts anew from its checkpoint."""

    node: str | None = Field(None, description="Only on this node; default all.")


class AddNodes(Model):
    """Nodes join a group."""

    node_group: Name | None = None
    count: int = Field(1, ge=1, le=100_000)


class RemoveNodes(Model):
    """Nodes leave: by name, or the last ones of a group."""

    node: str | None = None
    node_group: Name | None = None
    count: int = Field(1, ge=1)


class SetEnv(Model):
    """kubectl set env daemonset aws-node: ipamd restarts with the new environment."""

    node: str | None = Field(None, description="Only on this node; default all.")
    env: dict[str, EnvText]


class Fault(Model):
    """Something EC2 refuses or loses; ``for``, ``count`` and ``rate`` bound it, ``node`` and ``subnet`` place it."""

    api: Ec2Api | None = Field(None, description="The EC2 call that fails, or 'metadata'; with code.")
    code: str = "RequestLimitExceeded"
    for_: Duration | None = Field(None, alias="for")
    count: int | None = Field(None, ge=1)
    rate: float | None = Field(None, gt=0, le=1, description="Share of the calls that fail.")
    node: str | None = None
    subnet: Name | None = None
    lose_eni: int | None = Field(None, ge=1, description="Device number of an ENI that vanishes behind ipamd's back.")
    lose_addresses: int | None = Field(None, ge=1, description="So many addresses vanish from the ENI 'device'.")
    device: int = Field(0, ge=0)
    take_addresses: int | None = Field(None, ge=1, description="Others take so many addresses of the subnet.")
    release_addresses: int | None = Field(None, ge=1, description="Others give back so many.")
    attach_eni: int | None = Field(None, ge=0, description="Others attach an ENI with so many secondary addresses.")
    no_manage: bool = Field(False, description="The ENI of attachEni has the tag that makes ipamd leave it alone.")
    detach_eni: int | None = Field(None, ge=1, description="Others detach the ENI of this device and keep it.")
    prefixes: bool = Field(False, description="loseAddresses and attachEni count /28 prefixes instead.")
    metadata_lag: Duration | None = Field(
        None, description="Instance metadata shows changes so much later, on all nodes."
    )
    heal: bool = Field(
        False, description="Take back every earlier fault of 'api' (of all, without it), and metadataLag."
    )


class EventExpectation(Model):
    """Events that must (or must not) stand in the record."""

    reason: str | None = None
    message: str | None = Field(None, description="The whole message.")
    contains: str | None = Field(None, description="A part of the message.")
    object: str | None = Field(None, description="kind/name of the object, a glob.")
    count: int | None = Field(None, ge=0, description="The number of matching event objects.")
    times: int | None = Field(None, ge=1, description="The count that one of them has reached.")


class EniExpectation(Model):
    """Network interfaces of every node."""

    per_node: int | None = Field(None, ge=0)
    total: int | None = Field(None, ge=0)


class Expectation(Model):
    """What must hold at ``at`` (a time, or ``end``)."""

    at: Duration | Literal["end"] = "end"
    pods: dict[str, int] = Field(
        default_factory=dict,
        description="Pods by phase (Pending, Running, …), or total, scheduled, unscheduled, stuck (bound, no address).",
    )
    pods_of: dict[str, int] = Field(
        default_factory=dict, description="Running pods by owner: deployment name → number."
    )
    pods_per_node: int | list[int] | dict[str, int] | None = None
    enis: EniExpectation | None = None
    addresses_assigned: int | None = None
    events: list[EventExpectation] = Field(default_factory=list)
    invariants: bool | Literal["history"] = Field(
        True,
        description="Whether every invariant must hold; history: those too that need what came before (cool-downs, "
        "ipamd's turns, the life of an ENI), watched from the start.",
    )


class Step(Model):
    """One thing that happens: when (``at``, ``after``, ``until``), and what (one action)."""

    name: str | None = None
    at: Duration | None = Field(None, description="Time since the start.")
    after: Duration | None = Field(None, description="Time since the step before (and since 'until', if given).")
    until: str | None = Field(
        None, description="Wait for: settled, nodes ready, KIND/NAME available, or KIND/NAME gone."
    )
    timeout: Duration = Field(3600.0, description="How long 'until' may take.")
    apply: Workload | None = None
    scale: ScaleAction | None = None
    delete: str | Target | list[str] | None = Field(
        None, description="kind/name (in default), or kind, name, namespace."
    )
    set_env: SetEnv | None = None
    restart_aws_node: RestartAwsNode | None = None
    add_nodes: AddNodes | None = None
    remove_nodes: RemoveNodes | None = None
    cordon: str | None = None
    uncordon: str | None = None
    fault: Fault | None = None
    note: str | None = None
    look: str | None = Field(None, description="A reader's command: get pods -A, describe pod NAME, ip link NODE.")
    shows: list[str] = Field(default_factory=list, description="What the look's output must contain, line by line.")
    shows_not: list[str] = Field(default_factory=list, description="What it must not contain.")
    expect: Expectation | None = None

    def actions(self) -> list[str]:
        """Names of the actions given."""
        return [a for a in ACTIONS if getattr(self, a) is not None]


ACTIONS = (
    "apply",
    "scale",
    "delete",
    "set_env",
    "restart_aws_node",
    "add_nodes",
    "remove_nodes",
    "cordon",
    "uncordon",
    "fault",
    "note",
    "look",
    "expect",
)


def _start(value: Any) -> str:
    text = str(value)
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is not a moment such as 2021-08-17T10:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.isoformat()


class Scenario(Model):
    """A scenario: a cluster, what happens to it, and what must come of it."""

    api_version: Literal["eksim/v1"]
    kind: Literal["Scenario"]
    name: Name
    description: str = ""
    seed: int = Field(1, ge=0, le=2**63 - 1)
    start: Annotated[str, BeforeValidator(_start)] = Field(
        "2026-01-01T00:00:00+00:00", description="Calendar time of simulated second 0."
    )
    latency: Literal["default", "none"] | dict[str, str] = Field(
        "default",
        description="'none', or by name: '2s', 'uniform(1s, 2s)', 'lognormal(1s, 3s)' (median, 95th percentile).",
    )
    cluster: Cluster
    workloads: list[Workload] = Field(default_factory=list)
    steps: list[Step] = Field(default_factory=list)
    expect: list[Expectation] = Field(default_factory=list)
    run_for: Duration | None = Field(None, description="Length of the run; default until settled after the last step.")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file."""
    schema = Scenario.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "eksim scenario, eksim/v1"
    return schema
