"""What the scheduler works out of a pod's spec once, for all pods that share it.

Mimics ``framework/types.go`` (CalculateResource, the affinity terms of PodInfo) and
``noderesources/resource_allocation.go:calculatePodResourceRequest``. Kept in ``PodSpec.facts``.
"""

from __future__ import annotations

from collections.abc import Mapping

from eksim.state.affinity import PodAffinityTerm
from eksim.state.objects import Pod
from eksim.state.podspec import NONZERO_DEFAULTS, PodSpec
from eksim.state.selectors import LabelSelector


class AffinityTerm:
    """An affinity term whose missing namespaces were replaced by the pod's own.

    Source: kubernetes/pkg/scheduler/framework/types.go:newAffinityTerm, AffinityTerm.Matches, v1.34.1.
    """

    __slots__ = ("anywhere", "namespace_selector", "namespaces", "selector", "topology_key", "weight")

    def __init__(
        self, term: PodAffinityTerm, namespace: str, *, namespace_selector: bool, selector_stays: bool = False
    ) -> None:
        self.selector = term.selector
        self.topology_key = term.topology_key
        self.weight = term.weight
        self.namespace_selector: LabelSelector | None = term.namespace_selector if namespace_selector else None
        self.namespaces: tuple[str, ...] = term.namespaces or (
            (namespace,) if self.namespace_selector is None else ()
        )
        #: as a term of the pod being placed it selects pods of every namespace
        self.anywhere = (
            selector_stays and self.namespace_selector is not None and self.namespace_selector.matches({})
        )

    def matches(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        """Whether the term selects a pod with these labels in this namespace."""
        if namespace not in self.namespaces:
            if self.namespace_selector is None or not self.namespace_selector.matches(namespace_labels):
                return False
        return self.selector.matches(labels)

    def matches_for_incoming(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]
    ) -> bool:
        """Whether a term of the pod being placed selects a pod in this namespace.

        In 1.34 the namespaces that the selector selects are added to the term's own, but the selector stays (the term
        is passed by value) and is also asked about no labels at all: one that those fulfil (NotIn, DoesNotExist) selects
        every namespace. Source: kubernetes/pkg/scheduler/framework/plugins/interpodaffinity/plugin.go:
        mergeAffinityTermNamespacesIfNotEmpty, v1.34.1.
        """
        return self.matches(namespace, labels, namespace_labels) or (
            self.anywhere and self.selector.matches(labels)
        )


class Terms:
    """A spec's pod (anti-)affinity terms for pods of one namespace."""

    __slots__ = ("affinity", "anti", "preferred", "preferred_anti")

    def __init__(self, spec: PodSpec, namespace: str) -> None:
        rules = spec.rules.scheduler

        def resolve(terms: tuple[PodAffinityTerm, ...]) -> tuple[AffinityTerm, ...]:
            return tuple(
                AffinityTerm(
                    term,
                    namespace,
                    namespace_selector=rules.namespace_selector,
                    selector_stays=rules.namespace_selector_stays,
                )
                for term in terms
            )

        self.affinity = resolve(spec.affinity.pod_required)
        self.anti = resolve(spec.affinity.anti_required)
        self.preferred = resolve(spec.affinity.pod_preferred)
        self.preferred_anti = resolve(spec.affinity.anti_preferred)


class SpecFacts:
    """A spec's figures: cpu in millicores, memory in bytes, the rest in units."""

    __slots__ = (
        "_terms",
        "cpu",
        "ephemeral",
        "has_affinity",
        "has_own_terms",
        "has_required_anti",
        "host_ports",
        "labels",
        "memory",
        "named_nodes",
        "nonzero_cpu",
        "nonzero_memory",
        "prefer_tolerations",
        "requests_nothing",
        "scalars",
        "score_cpu",
        "score_memory",
        "spec",
        "uncommon",
    )

    def __init__(self, spec: PodSpec) -> None:
        self.spec = spec
        requests = spec.requests
        self.cpu: int = requests.get("cpu", 0)
        self.memory: int = requests.get("memory", 0)
        self.ephemeral: int = requests.get("ephemeral-storage", 0)
        #: extended resources, huge pages, attachable volumes; sorted, since the real order is random. Up to 1.27 one of
        #: which a container or the overhead asks 0 counts as asked for (Resource.Add), one of which only an init
        #: container does (Resource.SetMaxResource) does not.
        zeros: dict[str, None] = {}
        if not spec.rules.scheduler.zero_request_never_short:
            for amounts in (*(container.requests for container in spec.containers), spec.overhead):
                zeros.update(dict.fromkeys(amounts))
        self.scalars: tuple[tuple[str, int], ...] = tuple(
            sorted((n, amount) for n, amount in requests.items() if (amount or n in zeros) and is_scalar_resource_name(n))
        )
        self.requests_nothing = not (self.cpu or self.memory or self.ephemeral or self.scalars)
        self.nonzero_cpu: int = spec.nonzero_cpu
        self.nonzero_memory: int = spec.nonzero_memory
        # The pod's own figure in LeastAllocated ignores pod-level requests, and up to 1.26 takes the overhead's whole
        # cores for millicores (resource_allocation.go:calculatePodResourceRequest).
        own = spec.total_requests(NONZERO_DEFAULTS, pod_level=False)
        self.score_cpu: int = own.get("cpu", 0)
        self.score_memory: int = own.get("memory", 0)
        overhead_cpu = spec.overhead.get("cpu", 0)
        if overhead_cpu and spec.rules.scheduler.overhead_cpu_as_units:
            self.score_cpu += -(-overhead_cpu // 1000) - overhead_cpu
        self.host_ports = spec.host_ports
        self.uncommon = bool(self.ephemeral or self.scalars or self.host_ports)
        affinity = spec.affinity
        manifest = spec.manifest.get("affinity") or {}
        self.has_affinity = manifest.get("podAffinity") is not None or manifest.get("podAntiAffinity") is not None
        self.has_required_anti = bool(affinity.anti_required)
        self.has_own_terms = bool(
            affinity.pod_required or affinity.anti_required or affinity.pod_preferred or affinity.anti_preferred
        )
        required = affinity.node_required
        #: every term of the required node affinity names its nodes
        self.named_nodes = bool(required) and all(
            any(field.key == "metadata.name" and field.operator == "In" for field in term.fields) for term in required or ()
        )
        self.prefer_tolerations = tuple(t for t in spec.tolerations if t.effect in ("", "PreferNoSchedule"))
        self._terms: dict[str, Terms] = {}
        #: the labels of the pod met last and their key, which all pods of a template share
        self.labels: tuple[dict[str, str], tuple[tuple[str, str], ...]] | None = None

    def terms(self, namespace: str) -> Terms:
        """The affinity terms as a pod of ``namespace`` has them."""
        found = self._terms.get(namespace)
        if found is None:
            found = self._terms[namespace] = Terms(self.spec, namespace)
        return found


def facts_of(spec: PodSpec) -> SpecFacts:
    """The spec's facts, worked out on first use."""
    facts: SpecFacts | None = spec.facts
    if facts is None:
        facts = spec.facts = SpecFacts(spec)
    return facts


def is_scalar_resource_name(name: str) -> bool:
    """Extended resources, huge pages, attachable volumes, prefixed native ones.

    Source: kubernetes/pkg/scheduler/util/utils.go:IsScalarResourceName, v1.34.1.
    """
    return (
        is_extended_resource_name(name)
        or name.startswith(("hugepages-", "attachable-volumes-"))
        or "kubernetes.io/" in name
    )


def is_extended_resource_name(name: str) -> bool:
    """A resource with a domain that is neither Kubernetes' own nor a quota's.

    Source: kubernetes/pkg/apis/core/v1/helper/helpers.go:IsExtendedResourceName, v1.34.1.
    """
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def pod_matches_all_terms(terms: tuple[AffinityTerm, ...], pod: Pod, namespace_labels: Mapping[str, str]) -> bool:
    """Whether ``pod`` is selected by every term; false without terms.

    Source: kubernetes/pkg/scheduler/framework/plugins/interpodaffinity/filtering.go:podMatchesAllAffinityTerms,
    v1.34.1.
    """
    if not terms:
        return False
    for term in terms:  # noqa: SIM110 - half the cost of a generator
        if not term.matches(pod.namespace, pod.labels, namespace_labels):
            return False
    return True

