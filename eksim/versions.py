"""What differs between releases, as named switches: the only place where versions are compared.

``KubernetesRules`` and ``CniRules`` are asked by name (``rules.events_use_series``); the tables here say from which
release a switch has which value. Each switch's comment names the release that changed it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from eksim.errors import InputError


def parse_version(text: str) -> tuple[int, int, int]:
    """``v1.21.2-eks-0389ca3``, ``1.34`` → (1, 21, 2), (1, 34, 0)."""
    match = re.match(r"^v?(\d+)\.(\d+)(?:\.(\d+))?", str(text))
    if not match:
        raise InputError(f"{text!r} is not a version", expected="a version such as 1.34 or v1.21.2")
    return int(match[1]), int(match[2]), int(match[3] or 0)


@dataclass(frozen=True, slots=True)
class SchedulerRules:
    """Switches of one release of kube-scheduler.

    Sources: the scheduler's code at v1.21.9, v1.22.6, v1.23.5, v1.24.4, v1.25.2, v1.26.4, v1.27.1, v1.28.0, v1.29.1,
    v1.30.1 and v1.34.1; features that came in between are dated by their feature gates.
    """

    #: up to 1.21: one reason per taint was ``had taint …, that the pod didn't tolerate``; from 1.24 ``untolerated``.
    untolerated_taint_words: bool
    #: up to 1.21: InterPodAffinity gave two reasons, the general one first.
    affinity_two_reasons: bool
    #: from 1.24: the message goes on with what the PostFilter plugins say.
    postfilter_message: bool
    #: from 1.34: DynamicResources is on by default and says ``no new claims to deallocate``.
    dynamic_resources: bool
    #: up to 1.23: leftover flush after 60 s, then after 5 min.
    leftover_s: float
    #: up to 1.21: the scheduler's own status patch counts as an update of the pod (isPodUpdated).
    status_patch_moves: bool
    #: from 1.22 until hints came: a node's event moves only pods that would fit the node by itself (preCheckForNode).
    node_precheck: bool
    #: from 1.30: an update of a node counts once for each kind of change; before, for the first kind only.
    node_events_all: bool
    #: from 1.29: an attempt that failed by an error goes to backoffQ.
    errors_to_backoff: bool
    #: from 1.28: a resource of which the pod asks 0 is never short.
    zero_request_never_short: bool
    #: from 1.24: the bound pod replaces the assumed one in the cache, and so stands last on its node.
    confirm_replaces: bool
    #: from 1.27: a spread constraint with an empty selector counts no pods when counting (not in its own match).
    empty_selector_counts_none: bool
    #: from 1.27: eligibility to preempt asks whether the terminating pod was preempted.
    eligible_by_disruption: bool
    #: from 1.22: events move only pods whose rejecting plugins registered for them; before, all but AssignedPod*.
    events_by_plugin: bool
    #: from 1.32: queueing hints decide, and events seen while a pod is in flight count.
    queueing_hints: bool
    #: from 1.33: back-off ends on whole seconds, in windows of 1 s.
    backoff_windows: bool
    #: from 1.33: an empty activeQ takes the head of backoffQ.
    pop_from_backoff: bool
    #: from 1.33: the back-off counts rejections, or else consecutive errors; before, every pop.
    backoff_by_rejections: bool
    #: from 1.22: a nominated node is tried first, alone.
    prefer_nominated: bool
    #: from 1.33: preemption's API calls run in the background, and the pod waits for them.
    async_preemption: bool
    #: from 1.26: victims get condition DisruptionTarget.
    disruption_target: bool
    #: up to 1.25: ``Preempted by <namespace>/<name>``; 1.26 to 1.28 ``by a pod``; from 1.29 ``by pod <uid>``.
    preempted_words: str
    #: from 1.22: NodeResourcesFit scores; before, NodeResourcesLeastAllocated did.
    fit_scores: bool
    #: up to 1.22: NodePreferAvoidPods.
    prefer_avoid_pods: bool
    #: from 1.25: weights 3/2/2 for TaintToleration, NodeAffinity, InterPodAffinity.
    new_weights: bool
    #: from 1.22: BalancedAllocation by standard deviation over real requests.
    balanced_by_deviation: bool
    #: from 1.33: BalancedAllocation skips best-effort pods.
    balanced_skips_best_effort: bool
    #: from 1.27: a resource with allocatable 0 leaves both sums.
    zero_allocatable_left_out: bool
    #: up to 1.26: the pod's own cpu overhead in scores was its Value() (whole cores) taken for millicores.
    overhead_cpu_as_units: bool
    #: up to 1.23: spread's raw score truncated, then rounded.
    spread_rounded: bool
    #: from 1.22: the default spread's selector comes from the owner reference; before, from whatever selects the pod.
    spread_by_owner: bool
    #: from 1.26: nodeAffinityPolicy and nodeTaintsPolicy; before, domains as at 1.21.
    node_inclusion_policy: bool
    #: from 1.27: matchLabelKeys of spread constraints.
    match_label_keys: bool
    #: from 1.27 (beta, on): minDomains.
    min_domains: bool
    #: from 1.27: NodeAffinity skips scoring; a PreFilter may skip its Filter.
    prefilter_skip: bool
    #: from 1.28: InterPodAffinity and PodTopologySpread skip scoring.
    spread_and_interpod_skip: bool
    #: from 1.24: PreFilter may narrow the nodes (matchFields metadata.name).
    prefilter_nodes: bool
    #: from 1.22: namespaceSelector of affinity terms.
    namespace_selector: bool
    #: from 1.34: the incoming pod's namespaceSelector is asked about empty labels, too (a slip of that release).
    namespace_selector_stays: bool
    #: up to 1.23 ``domains``: hard spread counted per (key, value) on all nodes of the domains; then ``pair``: on the
    #: eligible nodes, the last constraint of a key winning (seen to 1.30); ``constraint``: each for itself (seen at 1.34).
    spread_counting: str
    #: from 1.31: NodeResourcesFit answers UnschedulableAndUnresolvable when the whole node is too small.
    fit_unresolvable: bool
    #: from 1.29: the number of nodes with an image is that of the snapshot into which the node was last copied, because it
    #: had changed; before, of when the node was added.
    image_counts_live: bool
    #: up to 1.24: assumed pods expire 2 min (then 15 min) after the binding; None: never.
    assumed_expire_s: float | None

    @staticmethod
    def of(minor: int) -> SchedulerRules:
        """The switches of release 1.``minor``."""
        return SchedulerRules(
            untolerated_taint_words=minor >= 24,
            affinity_two_reasons=minor <= 21,
            postfilter_message=minor >= 24,
            dynamic_resources=minor >= 34,
            leftover_s=60.0 if minor <= 23 else 300.0,
            status_patch_moves=minor <= 21,
            node_precheck=22 <= minor <= 31,
            node_events_all=minor >= 30,
            errors_to_backoff=minor >= 29,
            zero_request_never_short=minor >= 28,
            confirm_replaces=minor >= 24,
            empty_selector_counts_none=minor >= 27,
            eligible_by_disruption=minor >= 27,
            events_by_plugin=minor >= 22,
            queueing_hints=minor >= 32,
            backoff_windows=minor >= 33,
            pop_from_backoff=minor >= 33,
            backoff_by_rejections=minor >= 33,
            prefer_nominated=minor >= 22,
            async_preemption=minor >= 33,
            disruption_target=minor >= 26,
            preempted_words="name" if minor <= 25 else "anonymous" if minor <= 28 else "uid",
            fit_scores=minor >= 22,
            prefer_avoid_pods=minor <= 22,
            new_weights=minor >= 25,
            balanced_by_deviation=minor >= 22,
            balanced_skips_best_effort=minor >= 33,
            zero_allocatable_left_out=minor >= 27,
            overhead_cpu_as_units=minor <= 26,
            spread_rounded=minor >= 24,
            spread_by_owner=minor >= 22,
            node_inclusion_policy=minor >= 26,
            match_label_keys=minor >= 27,
            min_domains=minor >= 27,
            prefilter_skip=minor >= 27,
            spread_and_interpod_skip=minor >= 28,
            prefilter_nodes=minor >= 24,
            namespace_selector=minor >= 22,
            namespace_selector_stays=minor >= 34,
            spread_counting="domains" if minor <= 23 else "pair" if minor <= 31 else "constraint",
            fit_unresolvable=minor >= 31,
            image_counts_live=minor >= 29,
            assumed_expire_s=120.0 if minor <= 22 else 900.0 if minor <= 24 else None,
        )


@dataclass(frozen=True, slots=True)
class ControllerRules:
    """Switches of one release's controllers and of the API server's defaulting."""

    #: text of ScalingReplicaSet: up to 1.25 ``to 30``, 1.26 to 1.31 ``to 30 from 3``, from 1.32 ``from 3 to 30``.
    scaling_event_words: str
    #: from 1.22 (beta): ages are compared by their logarithm when a ReplicaSet chooses what to delete; before, exactly.
    logarithmic_scale_down: bool
    #: from 1.22 (beta): annotation controller.kubernetes.io/pod-deletion-cost.
    pod_deletion_cost: bool
    #: from 1.34: a ReplicaSet comes back at the earliest moment that a pod becomes available, that moment included;
    #: before, minReadySeconds + 1 s after a pod became ready.
    exact_availability: bool
    #: from 1.22 (beta): maxSurge of DaemonSets.
    daemonset_surge: bool
    #: from 1.32: a changed node is looked at in a queue of its own, by what runs there; before, by what changed.
    daemonset_node_queue: bool
    #: today an old daemon pod that is not available counts in maxUnavailable as it is replaced; at 1.28 it did not.
    daemonset_replaced_count: bool
    #: up to 1.27: hostPort = containerPort in templates under hostNetwork.
    host_ports_in_templates: bool
    #: from 1.34: recorders give an event a uuid as name if the object's name cannot be part of one.
    event_name_checked: bool
    #: from 1.27: the 2nd event of a series is sent with count 2; before, with 1, which the server refuses.
    series_starts_at_two: bool
    #: today the spam filter's key has the event's type (from 1.23).
    spam_key_has_type: bool
    #: today classic events also carry reportingComponent and reportingInstance (from 1.28).
    classic_reporting: bool

    @staticmethod
    def of(minor: int) -> ControllerRules:
        """The switches of release 1.``minor``."""
        return ControllerRules(
            scaling_event_words="to" if minor <= 25 else "to_from" if minor <= 31 else "from_to",
            logarithmic_scale_down=minor >= 22,
            pod_deletion_cost=minor >= 22,
            exact_availability=minor >= 34,
            daemonset_surge=minor >= 22,
            daemonset_node_queue=minor >= 32,
            daemonset_replaced_count=minor >= 29,
            host_ports_in_templates=minor <= 27,
            event_name_checked=minor >= 34,
            series_starts_at_two=minor >= 27,
            spam_key_has_type=minor >= 23,
            classic_reporting=minor >= 28,
        )


@dataclass(frozen=True, slots=True)
class KubernetesRules:
    """Switches of one Kubernetes release."""

    minor: int
    #: kube-scheduler writes events.k8s.io series ("today"); else classic core/v1 events. The lab's 1.21 cluster wrote
    #: classic ones (docs/fidelity.md).
    events_use_series: bool
    #: kubelet with dockershim (up to 1.23 on EKS) instead of containerd.
    dockershim: bool
    #: init containers with restartPolicy Always run beside the containers (from 1.29).
    sidecars: bool
    #: sidecars' host ports count (from 1.33).
    sidecar_host_ports: bool
    #: pod-level resources (from 1.34).
    pod_level_resources: bool
    #: schedulingGates (from 1.27).
    scheduling_gates: bool
    #: ImageLocality counts init containers (from 1.30).
    images_of_init: bool
    scheduler: SchedulerRules
    controllers: ControllerRules

    @staticmethod
    @lru_cache(maxsize=64)
    def of(version: str) -> KubernetesRules:
        """The switches of the release ``version`` (1.21 … today)."""
        _, minor, _ = parse_version(version)
        return KubernetesRules(
            minor=minor,
            events_use_series=minor >= 23,
            dockershim=minor <= 23,
            sidecars=minor >= 29,
            sidecar_host_ports=minor >= 33,
            pod_level_resources=minor >= 34,
            scheduling_gates=minor >= 27,
            images_of_init=minor >= 30,
            scheduler=SchedulerRules.of(minor),
            controllers=ControllerRules.of(minor),
        )


@dataclass(frozen=True, slots=True)
class CniRules:
    """Switches of one release of the VPC CNI."""

    version: tuple[int, int, int]
    #: from 1.9.0: ENABLE_PREFIX_DELEGATION and WARM_PREFIX_TARGET.
    prefix_delegation: bool
    #: from 1.8.0: with IP targets an ENI is filled up to the target only; before, wholly.
    assigns_to_target: bool
    #: up to 1.12: the start fills one ENI whether the pool is low or not, and never attaches one; from 1.13.0: one
    #: ordinary increase step if the pool is low.
    start_fills_one_eni: bool
    #: 1.9.0 to 1.16.2: nothing is added while no prefix is short of WARM_PREFIX_TARGET (so never with target 0).
    warm_prefix_gates_growth: bool
    #: up to 1.12: a failed Assign is followed by a new ENI in the same turn.
    failed_assign_tries_eni: bool
    #: EC2's codes that pause all growth for 120 s; none up to 1.9.0, only InsufficientCidrBlocks up to 1.10.1.
    pausing_codes: tuple[str, ...]
    #: from 1.16.3: growth stops once the pool holds max-pods addresses.
    max_pods_stops_growth: bool
    #: from 1.11.3: a cordoned node adds nothing and frees no ENI.
    cordon_stops_growth: bool
    #: from 1.12.6: AWS_MANAGE_ENIS_NON_SCHEDULABLE.
    cordon_setting: bool
    #: from 1.9.1: DISABLE_NETWORK_RESOURCE_PROVISIONING stops tags, the start's growth and the sweep of leaked ENIs too;
    #: before, only the loop's updates.
    provisioning_stops_all: bool
    #: from 1.15.4: an ENI is created with its addresses; before, they are assigned after the attach.
    eni_created_with_addresses: bool
    #: from 1.11.4: the wait for metadata wants no more than an ENI can have.
    wait_capped: bool
    #: from 1.18.3: every ENI with room is tried; before, one.
    tries_every_eni: bool
    #: from 1.16.4: a trunk gets no addresses.
    skips_trunk: bool
    #: from 1.11.4: EC2's answer to Assign is believed; before, a DescribeNetworkInterfaces follows each.
    assign_answer_believed: bool
    #: from 1.12.5: after PrivateIpAddressLimitExceeded EC2 is asked what is there; before, it counts as success.
    assign_limit_verified: bool
    #: from 1.15.0: IP_COOLDOWN_PERIOD; before, 30 s.
    cooldown_setting: bool
    #: from 1.20.0: whether an ENI may go is asked with the statistics of the turn's start; before, with fresh ones.
    turn_uses_one_look: bool
    #: up to 1.19: a decrease takes its marks when it begins.
    decrease_marks_at_begin: bool
    #: up to 1.10: a reconcile takes its mark when it begins.
    reconcile_marks_at_begin: bool
    #: how much a decrease gives back: "recomputed" per ENI (up to 1.8), "each" ENI up to the whole surplus (to 1.12),
    #: the surplus in "total" (from 1.13.0).
    decrease_amount: str
    #: 1.9.0 to 1.12: the walk of a decrease ends at the first ENI with nothing to give.
    decrease_ends_at_full_eni: bool
    #: up to 1.8: addresses given back are kept from reconcile from after the EC2 call on; else before it.
    reconcile_cache_after_call: bool
    #: from 1.18.4: reconcile compares the sets of addresses; before, only how many.
    reconcile_compares_sets: bool
    #: from 1.12.0: the checkpoint file tells what is assigned; before, the container runtime's sandboxes.
    checkpoint_file: bool
    #: 1.9.0 to 1.19: DEL of a leftover secondary address in prefix mode gives back all unused ones of its ENI.
    del_returns_leftover_addresses: bool
    #: "first" (up to 1.7.9: before all else, and a failure fails the start), "last" (to 1.13.0), "before-start" (to
    #: 1.13.3), "before-growth".
    security_group_refresh: str
    #: up to 1.18.1: the ENIs that get the security groups are read in metadata; then the datastore's.
    security_groups_by_metadata: bool
    #: 1.10.0 and 1.10.1: they get them without provisioning too.
    security_groups_always: bool
    #: from 1.8.0: tags come with the creation of an ENI, and are mended at start and reconcile; before, tagged after
    #: the attach.
    tags_at_creation: bool
    #: from 1.20.0: with CLUSTER_NAME, ENIs are tagged eks:eni:owner too.
    owner_tag: bool
    #: from 1.18.0: ENABLE_SUBNET_DISCOVERY.
    subnet_discovery: bool
    #: from 1.22.0: tags exclude subnets, ENIs in them are marked, cluster tags count.
    subnet_exclusion: bool
    #: 1.22.0: cluster tags are kubernetes.io/cluster/…, and they count on subnets without the CNI's tag and without
    #: CLUSTER_NAME too.
    cluster_tags_of_kubernetes: bool
    #: from 1.9.1: MANAGE_UNTAGGED_ENI, and no_manage with another value than true manages.
    manage_untagged: bool
    #: 1.20.0 to 1.22.4: each count of the ENIs left alone is added to the one before, and so takes ever more room.
    unmanaged_adds_up: bool
    #: from 1.13.0: DISABLE_LEAKED_ENI_CLEANUP.
    leak_cleanup_setting: bool
    #: from 1.19.6: ENABLE_IMDS_ONLY_MODE.
    imds_only_setting: bool
    #: from 1.20.4: a slot is kept for a trunk only on types that can have one.
    trunk_slot_by_type: bool
    #: from 1.23.0: the plugin talks to ipamd over a unix socket.
    unix_socket: bool
    #: up to 1.9.0: a failed Assign is worded by the AWS layer as well.
    assign_error_wrapped: bool
    #: up to 1.11.2: the error of single addresses is worded twice (that of prefixes always is).
    assign_error_twice: bool
    #: from 1.11.3: a start that cannot list the interfaces says why.
    start_error_wrapped: bool
    #: from 1.20.0: a datastore per network card; a failed start and a failed FreeENI say less or more for it.
    several_cards: bool
    #: "v1" (up to 1.19.3) or "v2": how the SDK words an API error, and retries it.
    sdk: str
    #: retries of the SDK after a refused call: 15 (ec2wrapper), 10, then the SDK v2's 3 tries.
    sdk_retries: int
    #: error text of an assignment that finds nothing.
    no_address_text: str

    @staticmethod
    @lru_cache(maxsize=64)
    def of(version: str) -> CniRules:
        """The switches of the release ``version`` (v1.7.5 … v1.23.1)."""
        v = parse_version(version)
        return CniRules(
            version=v,
            prefix_delegation=v >= (1, 9, 0),
            assigns_to_target=v >= (1, 8, 0),
            start_fills_one_eni=v < (1, 13, 0),
            warm_prefix_gates_growth=(1, 9, 0) <= v < (1, 16, 3),
            failed_assign_tries_eni=v < (1, 13, 0),
            pausing_codes=()
            if v < (1, 9, 1)
            else ("InsufficientCidrBlocks",)
            if v < (1, 10, 2)
            else ("InsufficientCidrBlocks", "InsufficientFreeAddressesInSubnet"),
            max_pods_stops_growth=v >= (1, 16, 3),
            cordon_stops_growth=v >= (1, 11, 3),
            cordon_setting=v >= (1, 12, 6),
            provisioning_stops_all=v >= (1, 9, 1),
            eni_created_with_addresses=v >= (1, 15, 4),
            wait_capped=v >= (1, 11, 4),
            tries_every_eni=v >= (1, 18, 3),
            skips_trunk=v >= (1, 16, 4),
            assign_answer_believed=v >= (1, 11, 4),
            assign_limit_verified=v >= (1, 12, 5),
            cooldown_setting=v >= (1, 15, 0),
            turn_uses_one_look=v >= (1, 20, 0),
            decrease_marks_at_begin=v < (1, 20, 0),
            reconcile_marks_at_begin=v < (1, 11, 0),
            decrease_amount="recomputed" if v < (1, 9, 0) else "each" if v < (1, 13, 0) else "total",
            decrease_ends_at_full_eni=(1, 9, 0) <= v < (1, 13, 0),
            reconcile_cache_after_call=v < (1, 9, 0),
            reconcile_compares_sets=v >= (1, 18, 4),
            checkpoint_file=v >= (1, 12, 0),
            del_returns_leftover_addresses=(1, 9, 0) <= v < (1, 20, 0),
            security_group_refresh="first"
            if v < (1, 7, 10)
            else "last"
            if v < (1, 13, 1)
            else "before-start"
            if v < (1, 13, 4)
            else "before-growth",
            security_groups_by_metadata=v < (1, 18, 2),
            security_groups_always=(1, 10, 0) <= v < (1, 10, 2),
            tags_at_creation=v >= (1, 8, 0),
            owner_tag=v >= (1, 20, 0),
            subnet_discovery=v >= (1, 18, 0),
            subnet_exclusion=v >= (1, 22, 0),
            cluster_tags_of_kubernetes=v == (1, 22, 0),
            manage_untagged=v >= (1, 9, 1),
            unmanaged_adds_up=(1, 20, 0) <= v < (1, 23, 0),
            leak_cleanup_setting=v >= (1, 13, 0),
            imds_only_setting=v >= (1, 19, 6),
            trunk_slot_by_type=v >= (1, 20, 4),
            unix_socket=v >= (1, 23, 0),
            assign_error_wrapped=v < (1, 9, 1),
            assign_error_twice=v < (1, 11, 3),
            start_error_wrapped=v >= (1, 11, 3),
            several_cards=v >= (1, 20, 0),
            sdk="v1" if v < (1, 19, 4) else "v2",
            sdk_retries=15 if v < (1, 8, 0) else 10 if v < (1, 19, 4) else 2,
            no_address_text="assignPodIPv4AddressUnsafe: no available IP addresses"
            if v < (1, 9, 0)
            else "assignPodIPv4AddressUnsafe: no available IP/Prefix addresses"
            if v < (1, 10, 0)
            else "AssignPodIPAddress: no available IP/Prefix addresses",
        )


@dataclass(frozen=True, slots=True)
class KubeletRules:
    """Switches of the kubelet of one release on EKS."""

    #: dockershim below it (EKS's default up to 1.23) instead of containerd.
    dockershim: bool
    #: kubeAPIQPS, kubeAPIBurst: 5 / 10, on EKS 10 / 20 from 1.22 on, 50 / 100 from 1.27 on.
    kubelet_api_qps: float
    kubelet_api_burst: float
    #: before the admission message in status.message of a rejected pod
    kubelet_reject_prefix: str
    #: longer texts of Pulled, Created and Preempted (1.30 on)
    long_event_texts: bool

    @staticmethod
    @lru_cache(maxsize=64)
    def of(version: str) -> KubeletRules:
        """The switches of the release ``version``."""
        _, minor, _ = parse_version(version)
        qps = 50.0 if minor >= 27 else 10.0 if minor >= 22 else 5.0
        return KubeletRules(
            dockershim=minor <= 23,
            kubelet_api_qps=qps,
            kubelet_api_burst=2 * qps,
            kubelet_reject_prefix="Pod was rejected: " if minor >= 27 else "Pod ",
            long_event_texts=minor >= 30,
        )

    def taint_reason(self, key: str, value: str) -> str:
        """The scheduler's TaintToleration reason, as the kubelet repeats it."""
        if self.dockershim:
            return f"node(s) had taint {{{key}: {value}}}, that the pod didn't tolerate"
        return f"node(s) had untolerated taint {{{key}: {value}}}"

    @property
    def network_not_ready_message(self) -> str:
        """Event NetworkNotReady while aws-node has not written its configuration."""
        if self.dockershim:
            return (
                "network is not ready: runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
                "message:docker: network plugin is not ready: cni config uninitialized"
            )
        return (
            "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
            "message:Network plugin returns error: cni plugin not initialized"
        )

    @property
    def created_message(self) -> str:
        """Event Created, with a place for the container's name."""
        return "Created container: {container}" if self.long_event_texts else "Created container {container}"

    @property
    def image_present_message(self) -> str:
        """Event Pulled for an image that is there, with a place for its name."""
        return 'Container image "{image}" already present on machine'

    def pulled_message(self, image: str, took_s: float, size: int) -> str:
        """Event Pulled after a pull. Durations as Go prints them."""
        text = _go_seconds(took_s, 3 if self.long_event_texts else 6)
        if self.long_event_texts:
            return f'Successfully pulled image "{image}" in {text} ({text} including waiting). Image size: {size} bytes.'
        return f'Successfully pulled image "{image}" in {text}'


def _go_seconds(seconds: float, digits: int) -> str:
    """A duration of at least a millisecond as Go prints it: ``1.234s``, ``350ms``, ``1m2.5s``."""
    if seconds < 1.0:
        return f"{round(seconds * 1000, digits - 3):g}ms"
    minutes, rest = divmod(seconds, 60.0)
    text = f"{round(rest, digits):.{digits}f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text
