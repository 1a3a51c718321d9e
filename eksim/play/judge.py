"""A cluster as the judges see it: the full :class:`Picture`, and the watchdog that keeps the history they need.

Only reads. Called by ``expect:``, :mod:`eksim.testing` and the run of a scenario that asks for history.
"""

from __future__ import annotations

from eksim.cluster import Cluster
from eksim.cni.settings import atoi
from eksim.kube.scheduler.queue import LEFTOVER_FLUSH_S
from eksim.state.invariants import Violation, violations
from eksim.state.network import RESERVED
from eksim.state.picture import Picture, SandboxPicture, TypePicture, WorkerPicture
from eksim.state.watchdog import Watchdog

#: The cool-down where IP_COOLDOWN_PERIOD is not set. Written once more here on purpose: a judge does not ask the judged.
#: Source: amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:getCooldownPeriod, v1.23.1.
COOLDOWN_S = 30.0


def picture_of(cluster: Cluster) -> Picture:
    """Everything the judges ask for, at this moment."""
    picture = cluster.picture()
    picture.full = True
    _count_subnets(cluster, picture)
    for name, row in cluster.cni.nodes.items():
        picture.sandboxes += [SandboxPicture(name, a.sandbox, f"{a.namespace}/{a.pod}", a.address)
                              for a in row.sandboxes.values()]  # fmt: skip
        picture.unheard.update(row.gone)
        if row.serving:
            picture.pools[name] = cluster.pool_stats(name)
    for node, worker in cluster.kubelet.workers():
        picture.workers.append(WorkerPicture(node, worker.pod, worker.sandbox, worker.address, worker.stage))
    if cluster.watchdog is not None:
        picture.taken = cluster.watchdog.taken()
    _add_types(cluster, picture)
    _add_scheduler(cluster, picture)
    return picture


def _count_subnets(cluster: Cluster, picture: Picture) -> None:
    """What is used in each subnet, counted from who uses it."""
    used = {name: len(subnet.taken) for name, subnet in cluster.network.subnets.items()}
    for eni in cluster.network.enis.values():
        used[eni.subnet.id] += 1 + len(eni.all_addresses())
    for name, subnet in cluster.network.subnets.items():
        picture.subnets[name] = (subnet.size, subnet.free, used[name], RESERVED)


def _add_types(cluster: Cluster, picture: Picture) -> None:
    for name, node in cluster.store.nodes.items():
        group = next((g for g in cluster.spec.node_groups if g.name == node.facts.get("node_group")), None)
        row = cluster.cni.nodes.get(name)
        if group is not None and row is not None:
            instance = row.instance
            picture.types[name] = TypePicture(instance.type, row.eni_limit, instance.ipv4_per_eni, group.max_pods)


def _add_scheduler(cluster: Cluster, picture: Picture) -> None:
    scheduler = cluster.scheduler
    for name in cluster.store.nodes:
        usage = scheduler.node_usage(name)
        if usage is not None:
            picture.requested[name] = usage.requested
    picture.assumed = {key: info.node for key, info in scheduler.core.cache.assumed.items()}
    picture.schedulers = tuple(scheduler.core.profiles)
    picture.leftover_s = scheduler.rules.leftover_s + LEFTOVER_FLUSH_S
    if scheduler.rules.queueing_hints:
        picture.silent = {}
    elif cluster.watchdog is not None:
        picture.silent = cluster.watchdog.silent()
    for key, pod in cluster.store.pods.items():
        if not pod.node:
            place = scheduler.place_of(key)
            if place is not None:
                picture.places[key] = place


class ClusterFacts:
    """What the watchdog asks of the components, at the moment it hears of a change."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def is_serving(self, node: str) -> bool:
        """Whether ipamd answers on the node."""
        row = self._cluster.cni.nodes.get(node)
        return row is not None and row.serving

    def prefix_mode(self, node: str) -> bool:
        """Whether ipamd gives out addresses of /28s there."""
        row = self._cluster.cni.nodes.get(node)
        return row is not None and row.prefix_mode

    def cooldown_s(self, node: str) -> float:
        """The cool-down that the environment asks for, read anew."""
        row = self._cluster.cni.nodes.get(node)
        if row is None or not row.rules.cooldown_setting:
            return COOLDOWN_S
        value = atoi(row.env.get("IP_COOLDOWN_PERIOD", ""))
        return COOLDOWN_S if value is None else float(value)

    def assigned(self, node: str) -> dict[str, int]:
        """ipamd's datastore: sandbox → address."""
        cni = self._cluster.cni
        return {key: address for key, address, _ in cni.assignments(node)} if node in cni.nodes else {}

    def assumed_on(self, pod: str) -> str:
        """The node on which the scheduler assumes the pod to be."""
        info = self._cluster.scheduler.core.cache.assumed.get(pod)
        return "" if info is None else info.node

    def picture(self) -> Picture:
        """The whole picture, which is dear: for a change that looks wrong."""
        return picture_of(self._cluster)


def watch(cluster: Cluster) -> None:
    """Set a watchdog on the cluster from this change on; as ``build``'s ``prepare`` it sees all of them."""
    cluster.watchdog = Watchdog(cluster.clock, cluster.store, ClusterFacts(cluster))


def judge(cluster: Cluster) -> list[Violation]:
    """Every invariant that does not hold now, and those that the watchdog, if there is one, saw broken on the way."""
    found = violations(cluster.store, picture_of(cluster))
    if cluster.watchdog is not None:
        found += cluster.watchdog.violations()
    return found
