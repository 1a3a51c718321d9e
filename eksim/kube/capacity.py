"""What a node offers: capacity and allocatable on EKS, by instance type and Amazon Linux release.

Pure functions; ``cluster.py`` builds Node objects from them. Leaves out Bottlerocket, Windows and further volumes.
"""

from __future__ import annotations

from eksim.catalog.types import InstanceType

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

#: MemTotal in KiB as real nodes showed it: type → (Amazon Linux 2, Amazon Linux 2023); None: not seen.
#: Source: node objects printed in public repositories and issues, 2020–2026 (docs/fidelity.md).
SEEN_MEMORY_KIB: dict[str, tuple[int | None, int | None]] = {
    "t3.medium": (3977916, 3926448),
    "m5.large": (7951036, None),
    "t4g.small": (1895736, None),
    "t4g.medium": (3932504, None),
    "t4g.xlarge": (16152844, None),
    "m5.xlarge": (15921668, None),
    "c5.2xlarge": (15835156, 15984828),
    "g4dn.xlarge": (None, 16164852),
    "m5.2xlarge": (32067240, None),
    "r5.xlarge": (32409624, None),
    "g4dn.2xlarge": (None, 32475408),
    "p3.2xlarge": (62769452, None),
    "p3.8xlarge": (251509044, None),
}

#: Root file system of the usual 20 GiB volume, KiB: XFS of Amazon Linux 2, of Amazon Linux 2023.
ROOT_KIB = (20959212, 20893676)
#: evictionHard nodefs.available is kept as a 32-bit float: 10 % of C is ⌊C × this⌋.
#: Source: kubernetes/pkg/kubelet/eviction/helpers.go:GetThresholdQuantity, parsePercentage.
TEN_PERCENT_FLOAT32 = 0.10000000149011612
EVICTION_MEMORY_MIB = 100
KUBE_RESERVED_STORAGE = GIB


def memory_capacity(instance: InstanceType, al2023: bool) -> int:
    """Bytes of memory the kernel shows: as seen on real nodes, else the nominal size less a share that fits them.

    Raises InputError if the catalogue does not know the type's memory.
    """
    seen = SEEN_MEMORY_KIB.get(instance.name, (None, None))[al2023]
    if seen is not None:
        return seen * KIB
    nominal_mib = instance.need("memory_mib")
    gib = nominal_mib / 1024
    if instance.architecture == "arm64":
        nominal_mib -= 64
    if al2023:
        missing = 63 if gib <= 8 else 48 if gib <= 16 else 35 if gib <= 32 else 25
    else:
        missing = 53 if gib <= 16 else 44 if gib <= 32 else 30 if gib <= 128 else 18
    return nominal_mib * MIB // KIB * (1000 - missing) // 1000 * KIB


def cpu_millicores_to_reserve(vcpu: int) -> int:
    """kube-reserved CPU: 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the rest.

    Source: amazon-eks-ami/nodeadm/internal/kubelet/config.go:getCPUMillicoresToReserve (the same in AL2's bootstrap.sh).
    """
    total = vcpu * 1000
    reserved = 0
    for start, end, percent in ((0, 1000, 600), (1000, 2000, 100), (2000, 4000, 50), (4000, 1 << 62, 25)):
        if total > start:
            reserved += (min(total, end) - start) * percent // 10000
    return reserved


def memory_mib_to_reserve(generated_max_pods: int) -> int:
    """kube-reserved memory in MiB, from the max-pods figure that the AMI computed (not a user's override).

    Source: amazon-eks-ami/nodeadm/internal/kubelet/config.go:getMemoryMebibytesToReserve.
    """
    return 11 * generated_max_pods + 255


def node_resources(
    instance: InstanceType, max_pods: int, generated_max_pods: int, al2023: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """(capacity, allocatable): cpu in millicores, memory and ephemeral-storage in bytes, pods.

    Source: kubernetes/pkg/kubelet/cm/node_container_manager_linux.go:GetNodeAllocatableReservation; EKS reserves nothing for
    the system, and its evictionHard is memory 100Mi and nodefs 10 %.
    """
    vcpu = instance.need("vcpu")
    memory = memory_capacity(instance, al2023)
    storage = ROOT_KIB[al2023] * KIB
    capacity = {"cpu": vcpu * 1000, "memory": memory, "ephemeral-storage": storage, "pods": max_pods}
    allocatable = {
        "cpu": max(vcpu * 1000 - cpu_millicores_to_reserve(vcpu), 0),
        "memory": max(memory - (memory_mib_to_reserve(generated_max_pods) + EVICTION_MEMORY_MIB) * MIB, 0),
        "ephemeral-storage": max(storage - int(storage * TEN_PERCENT_FLOAT32) - KUBE_RESERVED_STORAGE, 0),
        "pods": max_pods,
    }
    return capacity, allocatable
