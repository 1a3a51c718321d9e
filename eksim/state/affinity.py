"""A pod's affinity and topology spread constraints, parsed.

Mimics ``v1.Affinity`` and ``v1.TopologySpreadConstraint`` with the API's defaults; namespaces stay as written, since a
term without any means "the pod's own namespace", which a shared spec does not know. Called by ``state/podspec.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eksim.state.selectors import LabelSelector, NodeSelectorTerm


class PodAffinityTerm:
    """One (anti-)affinity term. ``namespaces`` and ``namespace_selector`` both missing: the pod's own namespace."""

    __slots__ = ("namespace_selector", "namespaces", "selector", "topology_key", "weight")

    def __init__(
        self,
        selector: LabelSelector,
        topology_key: str,
        namespaces: tuple[str, ...] = (),
        namespace_selector: LabelSelector | None = None,
        weight: int = 0,
    ) -> None:
        self.selector = selector
        self.topology_key = topology_key
        self.namespaces = namespaces
        self.namespace_selector = namespace_selector
        self.weight = weight

    @staticmethod
    def parse(manifest: Mapping[str, Any], weight: int = 0) -> PodAffinityTerm:
        """A PodAffinityTerm's manifest. Raises ValueError."""
        key = manifest.get("topologyKey")
        if not isinstance(key, str) or not key:
            raise ValueError("a pod affinity term needs a topologyKey")
        namespace_selector = manifest.get("namespaceSelector")
        return PodAffinityTerm(
            LabelSelector.parse(manifest.get("labelSelector")),
            key,
            tuple(manifest.get("namespaces") or ()),
            None if namespace_selector is None else LabelSelector.parse(namespace_selector),
            weight,
        )


class Affinity:
    """``spec.affinity``. ``node_required``: None without required node affinity; each preferred term has its weight."""

    __slots__ = (
        "anti_preferred",
        "anti_required",
        "node_preferred",
        "node_required",
        "pod_preferred",
        "pod_required",
    )

    def __init__(self) -> None:
        self.node_required: tuple[NodeSelectorTerm, ...] | None = None
        self.node_preferred: tuple[tuple[int, NodeSelectorTerm], ...] = ()
        self.pod_required: tuple[PodAffinityTerm, ...] = ()
        self.pod_preferred: tuple[PodAffinityTerm, ...] = ()
        self.anti_required: tuple[PodAffinityTerm, ...] = ()
        self.anti_preferred: tuple[PodAffinityTerm, ...] = ()

    @staticmethod
    def parse(manifest: Mapping[str, Any] | None) -> Affinity:
        """``spec.affinity`` or None. Raises ValueError."""
        if not manifest:
            return NO_AFFINITY
        affinity = Affinity()
        node = manifest.get("nodeAffinity") or {}
        required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
        if required is not None:
            affinity.node_required = tuple(
                NodeSelectorTerm.parse(term) for term in required.get("nodeSelectorTerms") or ()
            )
        affinity.node_preferred = tuple(
            (int(term["weight"]), NodeSelectorTerm.parse(term.get("preference") or {}))
            for term in node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        )
        affinity.pod_required, affinity.pod_preferred = _pod_terms(manifest.get("podAffinity"))
        affinity.anti_required, affinity.anti_preferred = _pod_terms(manifest.get("podAntiAffinity"))
        return affinity


NO_AFFINITY = Affinity()


def _pod_terms(
    manifest: Mapping[str, Any] | None,
) -> tuple[tuple[PodAffinityTerm, ...], tuple[PodAffinityTerm, ...]]:
    if not manifest:
        return (), ()
    required = manifest.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    preferred = manifest.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return (
        tuple(PodAffinityTerm.parse(term) for term in required),
        tuple(PodAffinityTerm.parse(term.get("podAffinityTerm") or {}, int(term["weight"])) for term in preferred),
    )


class TopologySpreadConstraint:
    """One constraint; ``hard``: DoNotSchedule. ``min_domains`` counts as 1 when missing."""

    __slots__ = (
        "hard",
        "honor_node_affinity",
        "honor_node_taints",
        "match_label_keys",
        "max_skew",
        "min_domains",
        "selector",
        "topology_key",
    )

    def __init__(
        self,
        max_skew: int,
        topology_key: str,
        hard: bool,
        selector: LabelSelector,
        *,
        min_domains: int = 1,
        honor_node_affinity: bool = True,
        honor_node_taints: bool = False,
        match_label_keys: tuple[str, ...] = (),
    ) -> None:
        self.max_skew = max_skew
        self.topology_key = topology_key
        self.hard = hard
        self.selector = selector
        self.min_domains = min_domains
        self.honor_node_affinity = honor_node_affinity
        self.honor_node_taints = honor_node_taints
        self.match_label_keys = match_label_keys

    @staticmethod
    def parse(manifest: Mapping[str, Any]) -> TopologySpreadConstraint:
        """A constraint's manifest. Raises ValueError."""
        key = manifest.get("topologyKey")
        if not isinstance(key, str) or not key:
            raise ValueError("a topology spread constraint needs a topologyKey")
        max_skew = int(manifest.get("maxSkew") or 0)
        if max_skew < 1:
            raise ValueError(f"maxSkew of {key!r} must be at least 1")
        when = manifest.get("whenUnsatisfiable")
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            raise ValueError(f"whenUnsatisfiable of {key!r} is DoNotSchedule or ScheduleAnyway, not {when!r}")
        return TopologySpreadConstraint(
            max_skew,
            key,
            when == "DoNotSchedule",
            LabelSelector.parse(manifest.get("labelSelector")),
            min_domains=int(manifest.get("minDomains") or 1),
            honor_node_affinity=manifest.get("nodeAffinityPolicy") != "Ignore",
            honor_node_taints=manifest.get("nodeTaintsPolicy") == "Honor",
            match_label_keys=tuple(manifest.get("matchLabelKeys") or ()),
        )
