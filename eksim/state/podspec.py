"""A pod's spec, read once and shared by every pod of a template.

Mimics what the API server's defaulting and ``component-helpers/resource`` make of a manifest; leaves out volumes and
security. Immutable by convention: a change of a pod's spec is a new ``PodSpec``. Called by everything that creates pods
and by the scheduler, which keeps the facts it works out per spec in ``facts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from eksim.state.affinity import Affinity, TopologySpreadConstraint
from eksim.state.objects import Taint
from eksim.units import resource_amounts
from eksim.versions import KubernetesRules

#: What a container that names no cpu or memory counts for in scores (util/pod_resources.go).
DEFAULT_MILLI_CPU_REQUEST: Final = 100
DEFAULT_MEMORY_REQUEST: Final = 200 * 1024 * 1024

NONZERO_DEFAULTS: Final = {"cpu": DEFAULT_MILLI_CPU_REQUEST, "memory": DEFAULT_MEMORY_REQUEST}

_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}

Amounts = dict[str, int]
HostPort = tuple[str, str, int]


class Toleration:
    """One toleration; ``seconds``: tolerationSeconds, None: for ever."""

    __slots__ = ("effect", "key", "operator", "seconds", "value")

    def __init__(self, key: str, operator: str, value: str, effect: str, seconds: int | None = None) -> None:
        self.key = key
        self.operator = operator
        self.value = value
        self.effect = effect
        self.seconds = seconds

    @staticmethod
    def parse(manifest: Mapping[str, Any]) -> Toleration:
        """From ``spec.tolerations[]``. Raises ValueError."""
        operator = manifest.get("operator") or "Equal"
        if operator not in ("Equal", "Exists"):
            raise ValueError(f"a toleration's operator is Equal or Exists, not {operator!r}")
        seconds = manifest.get("tolerationSeconds")
        return Toleration(
            str(manifest.get("key") or ""),
            operator,
            str(manifest.get("value") or ""),
            str(manifest.get("effect") or ""),
            None if seconds is None else int(seconds),
        )

    def tolerates(self, taint: Taint) -> bool:
        """Source: api/core/v1/toleration.go:ToleratesTaint, v1.34.1."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or self.value == taint.value

    def key_of(self) -> tuple[Any, ...]:
        """Its content, to compare by."""
        return (self.key, self.operator, self.value, self.effect, self.seconds)


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether one of ``tolerations`` tolerates ``taint`` (helpers.TolerationsTolerateTaint)."""
    for toleration in tolerations:  # noqa: SIM110 - half the cost of a generator
        if toleration.tolerates(taint):
            return True
    return False


class ContainerSpec:
    """One container. ``requests`` and ``limits`` as integers: cpu in millicores, memory in bytes, the rest in units."""

    __slots__ = (
        "image",
        "image_pull_policy",
        "lifecycle",
        "limits",
        "liveness_probe",
        "manifest",
        "name",
        "ports",
        "readiness_probe",
        "requests",
        "restart_policy",
        "startup_probe",
    )

    def __init__(self, manifest: Mapping[str, Any], *, defaulted: bool) -> None:
        self.manifest = manifest
        self.name = str(manifest.get("name") or "")
        self.image = str(manifest.get("image") or "")
        self.image_pull_policy = str(manifest.get("imagePullPolicy") or default_pull_policy(self.image))
        self.ports: tuple[Mapping[str, Any], ...] = tuple(manifest.get("ports") or ())
        resources = manifest.get("resources") or {}
        self.limits: Amounts = resource_amounts(resources.get("limits"))
        self.requests: Amounts = resource_amounts(resources.get("requests"))
        if defaulted:
            # A limit alone becomes a request (apis/core/v1/defaults.go:SetDefaults_Pod).
            for name, amount in self.limits.items():
                self.requests.setdefault(name, amount)
        self.restart_policy = str(manifest.get("restartPolicy") or "")
        self.readiness_probe: Mapping[str, Any] | None = manifest.get("readinessProbe")
        self.liveness_probe: Mapping[str, Any] | None = manifest.get("livenessProbe")
        self.startup_probe: Mapping[str, Any] | None = manifest.get("startupProbe")
        self.lifecycle: Mapping[str, Any] | None = manifest.get("lifecycle")

    @property
    def sidecar(self) -> bool:
        """Whether an init container restarts and so runs beside the containers."""
        return self.restart_policy == "Always"


def default_pull_policy(image: str) -> str:
    """``Always`` for the tag latest or none, else ``IfNotPresent``; a digest counts as a tag.

    Source: kubernetes/pkg/apis/core/v1/defaults.go:SetDefaults_Container, v1.34.1.
    """
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


class PodSpec:
    """A pod's spec with what every component asks of it. Amounts: millicores, bytes, units; times in seconds.

    ``requests``: what the filters count. ``nonzero_cpu``, ``nonzero_memory``: what the node's sums for scores count.
    ``facts`` belongs to the scheduler.
    """

    __slots__ = (
        "affinity",
        "all_containers",
        "containers",
        "facts",
        "host_network",
        "host_ports",
        "images",
        "init_containers",
        "manifest",
        "node_name",
        "node_selector",
        "nonzero_cpu",
        "nonzero_memory",
        "overhead",
        "pod_requests",
        "preemption_policy",
        "priority",
        "priority_class",
        "requests",
        "restart_policy",
        "rules",
        "scheduler_name",
        "scheduling_gates",
        "service_account",
        "termination_grace_s",
        "tolerations",
        "topology_spread",
    )

    def __init__(self, manifest: Mapping[str, Any], rules: KubernetesRules, *, defaulted: bool) -> None:
        self.manifest: dict[str, Any] = dict(manifest)
        self.rules = rules
        self.facts: Any = None
        self.containers = tuple(ContainerSpec(c, defaulted=defaulted) for c in manifest.get("containers") or ())
        self.init_containers = tuple(
            ContainerSpec(c, defaulted=defaulted) for c in manifest.get("initContainers") or ()
        )
        #: in the order of starting
        self.all_containers = (*self.init_containers, *self.containers)
        if not rules.sidecars:
            for container in self.init_containers:
                container.restart_policy = ""
        self.host_network = bool(manifest.get("hostNetwork"))
        self.restart_policy = str(manifest.get("restartPolicy") or "Always")
        self.service_account = str(manifest.get("serviceAccountName") or "default")
        grace = manifest.get("terminationGracePeriodSeconds")
        self.termination_grace_s = 30.0 if grace is None else float(grace)
        self.tolerations = tuple(Toleration.parse(t) for t in manifest.get("tolerations") or ())
        self.node_selector: dict[str, str] = {k: str(v) for k, v in (manifest.get("nodeSelector") or {}).items()}
        self.affinity = Affinity.parse(manifest.get("affinity"))
        self.topology_spread = tuple(
            TopologySpreadConstraint.parse(c) for c in manifest.get("topologySpreadConstraints") or ()
        )
        self.priority_class = str(manifest.get("priorityClassName") or "")
        priority = manifest.get("priority")
        self.priority = _SYSTEM_PRIORITIES.get(self.priority_class, 0) if priority is None else int(priority)
        self.preemption_policy = str(manifest.get("preemptionPolicy") or "PreemptLowerPriority")
        self.scheduling_gates: tuple[str, ...] = (
            tuple(str(g["name"]) for g in manifest.get("schedulingGates") or ()) if rules.scheduling_gates else ()
        )
        self.scheduler_name = str(manifest.get("schedulerName") or "default-scheduler")
        self.node_name = str(manifest.get("nodeName") or "")
        self.overhead: Amounts = resource_amounts(manifest.get("overhead"))
        self.pod_requests: Amounts = self._pod_level(manifest, defaulted) if rules.pod_level_resources else {}
        self.requests: Amounts = self.total_requests()
        # With pod-level requests, only what the pod as a whole does not name is defaulted (getNonMissingContainerRequests).
        defaults = (
            {name: amount for name, amount in NONZERO_DEFAULTS.items() if name not in self.requests}
            if self.pod_requests
            else NONZERO_DEFAULTS
        )
        nonzero = self.total_requests(defaults)
        self.nonzero_cpu = nonzero.get("cpu", 0)
        self.nonzero_memory = nonzero.get("memory", 0)
        self.host_ports = self._host_ports(rules, defaulted)
        self.images: tuple[str, ...] = tuple(
            c.image for c in ((*self.init_containers, *self.containers) if rules.images_of_init else self.containers)
        )

    @staticmethod
    def parse(
        manifest: Mapping[str, Any], rules: KubernetesRules | None = None, *, defaulted: bool = True
    ) -> PodSpec:
        """A manifest's ``spec``. ``rules``: the release that reads it (default today); fields it does not know are
        ignored. ``defaulted``: as the API server would default it. Raises ValueError with the field's name."""
        if not isinstance(manifest, Mapping):
            raise ValueError("a pod's spec must be a mapping")
        try:
            return PodSpec(manifest, rules or TODAY, defaulted=defaulted)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"the pod's spec has a field of the wrong form: {error}") from error

    def replace(self, **fields: Any) -> PodSpec:
        """A new spec with some of the manifest's fields replaced (``tolerations=[…]``); None removes one."""
        manifest = {**self.manifest, **fields}
        return PodSpec(
            {name: value for name, value in manifest.items() if value is not None}, self.rules, defaulted=True
        )

    def total_requests(self, defaults: Mapping[str, int] | None = None, *, pod_level: bool = True) -> Amounts:
        """The pod's request: the larger of containers with sidecars and the init containers' running maximum, plus
        overhead; pod-level requests override. ``defaults``: what a container counts that does not name a resource.

        Source: component-helpers/resource/helpers.go:PodRequests, AggregateContainerRequests, v1.34.1 (without
        sidecars the same as kubernetes/pkg/scheduler/framework/types.go:calculateResource, v1.21.9).
        """

        def of(container: ContainerSpec) -> Amounts:
            return {**defaults, **container.requests} if defaults else container.requests

        total: Amounts = {}
        for container in self.containers:
            _add(total, of(container))
        beside: Amounts = {}
        most: Amounts = {}
        for container in self.init_containers:
            request = of(container)
            if container.sidecar:
                _add(total, request)
                _add(beside, request)
                request = beside
            elif beside:
                request = dict(request)
                _add(request, beside)
            for name, amount in request.items():
                if amount > most.get(name, -1):
                    most[name] = amount
        for name, amount in most.items():
            if amount > total.get(name, -1):
                total[name] = amount
        if pod_level:
            total.update(self.pod_requests)
        _add(total, self.overhead)
        return total

    def _pod_level(self, manifest: Mapping[str, Any], defaulted: bool) -> Amounts:
        """Source: component-helpers/resource/helpers.go:IsSupportedPodLevelResource and, for the defaults,
        kubernetes/pkg/apis/core/v1/defaults.go:setDefaultPodLevelResources, v1.34.1."""
        resources = manifest.get("resources") or {}
        wanted = {
            name: amount
            for name, amount in resource_amounts(resources.get("requests")).items()
            if _pod_level_resource(name)
        }
        limits = resource_amounts(resources.get("limits"))
        if defaulted and (wanted or limits):
            self.pod_requests = {}
            for name, amount in self.total_requests(pod_level=False).items():
                if name in ("cpu", "memory"):
                    wanted.setdefault(name, amount - self.overhead.get(name, 0))
            for name, amount in limits.items():
                if _pod_level_resource(name):
                    wanted.setdefault(name, amount)
        return wanted

    def _host_ports(self, rules: KubernetesRules, defaulted: bool) -> tuple[HostPort, ...]:
        """(ip, protocol, port) of each host port; on the host network every port is one.

        Source: kubernetes/pkg/scheduler/util/utils.go:GetHostPorts, v1.34.1; framework/types.go:
        HostPortInfo.sanitize; kubernetes/pkg/apis/core/v1/defaults.go:defaultHostNetworkPorts.
        """
        found: dict[HostPort, None] = {}
        for container in (*self.init_containers, *self.containers):
            if container in self.init_containers and not (container.sidecar and rules.sidecar_host_ports):
                continue
            for port in container.ports:
                number = int(port.get("hostPort") or 0)
                if not number and defaulted and self.host_network:
                    number = int(port.get("containerPort") or 0)
                if number > 0:
                    ip = str(port.get("hostIP") or "0.0.0.0")
                    found[(ip, str(port.get("protocol") or "TCP"), number)] = None
        return tuple(found)


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _pod_level_resource(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith("hugepages-")


#: The newest release that is modelled.
TODAY: Final = KubernetesRules.of("1.34")
