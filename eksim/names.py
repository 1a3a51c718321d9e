"""Names as the real ones look: pod suffixes, template hashes, interface, node and EC2 ids.

Pure functions; the random ones take the stream to draw from (``streams["names"]``). The text that a pod-template-hash
is computed over is made in :mod:`eksim.kube.template`. Called by the controllers, the CNI and whatever makes nodes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache

from eksim.engine.streams import Stream

#: No vowels and no 0, 1, 3, so that no bad words arise.
#: Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go, v1.34.1.
ALPHANUMS = "bcdfghjklmnpqrstvwxz2456789"

_SUFFIX_LENGTH = 5
_SUFFIXES = len(ALPHANUMS) ** _SUFFIX_LENGTH
_PAIRS = tuple(a + b for a in ALPHANUMS for b in ALPHANUMS)

#: ``generateName`` is cut so that name and suffix fit 63 characters.
MAX_GENERATED_NAME_LENGTH = 63 - _SUFFIX_LENGTH

_FNV_OFFSET = 2166136261
_FNV_PRIME = 16777619


def random_suffix(stream: Stream) -> str:
    """Five characters of :data:`ALPHANUMS`, each drawn evenly.

    Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go:String, v1.34.1.
    """
    n = int(stream.random() * _SUFFIXES)  # stream.randrange, written out: every pod has a name
    return _PAIRS[n // 19683] + _PAIRS[n // 27 % 729] + ALPHANUMS[n % 27]


def generate_name(prefix: str, stream: Stream) -> str:
    """``metadata.generateName`` turned into a name.

    Source: kubernetes/staging/src/k8s.io/apiserver/pkg/storage/names/generate.go:GenerateName, v1.34.1.
    """
    return prefix[:MAX_GENERATED_NAME_LENGTH] + random_suffix(stream)


def fnv1a_32(data: bytes, state: int = _FNV_OFFSET) -> int:
    """FNV-1a, 32 bit; ``state`` continues an earlier sum."""
    for byte in data:
        state = ((state ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return state


def fnv1_32(data: bytes) -> int:
    """FNV-1 (multiply first), 32 bit."""
    state = _FNV_OFFSET
    for byte in data:
        state = ((state * _FNV_PRIME) & 0xFFFFFFFF) ^ byte
    return state


def safe_encode(text: str) -> str:
    """Each character c becomes ``ALPHANUMS[ord(c) mod 27]``.

    Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go:SafeEncodeString, v1.34.1.
    """
    return "".join(ALPHANUMS[ord(c) % len(ALPHANUMS)] for c in text)


@lru_cache(maxsize=4096)
def hash_from_sum(fnv_state: int, collision_count: int | None = None) -> str:
    """The hash in a name from the FNV-1a sum of a template's dump and the Deployment's ``status.collisionCount``.

    The count is put as 4 bytes, least first, into a buffer of 8 bytes.
    Source: kubernetes/pkg/controller/controller_utils.go:ComputeHash, v1.34.1.
    """
    if collision_count is not None:
        fnv_state = fnv1a_32(collision_count.to_bytes(4, "little") + b"\0\0\0\0", fnv_state)
    return safe_encode(str(fnv_state))


def revision_hash(data: str, collision_count: int | None = 0) -> str:
    """The hash in the name of a StatefulSet's ControllerRevision, over the JSON text of its data.

    Source: kubernetes/pkg/controller/history/controller_history.go:HashControllerRevision, v1.34.1.
    """
    text = data if collision_count is None else data + str(collision_count)
    return safe_encode(str(fnv1_32(text.encode())))


def uid(stream: Stream) -> str:
    """A random (version 4) UUID, as ``metadata.uid``."""
    n = stream.bits(122)
    # 48 random bits, the version's 4, 12 random, the variant's 2, 62 random
    bits = (n >> 74) << 80 | 4 << 76 | (n >> 62 & 0xFFF) << 64 | 2 << 62 | n & 0x3FFFFFFFFFFFFFFF
    text = bits.to_bytes(16, "big").hex()  # twice as fast as a format
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=65536)
def host_veth_name(namespace: str, pod: str, prefix: str = "eni", index: int = 0) -> str:
    """The host side of a pod's veth pair: prefix + 11 hex digits; ``index``: the interface of a multi-NIC pod.

    Source: amazon-vpc-cni-k8s/pkg/networkutils/names.go:GeneratePodHostVethName, v1.23.1.
    """
    text = f"{namespace}.{pod}" if index == 0 else f"{namespace}.{pod}.{index}"
    return prefix + hashlib.sha1(text.encode()).hexdigest()[:11]


def node_name(address: str, region: str) -> str:
    """The private DNS name that EKS gives a node, from its primary IPv4 address (``192.168.1.90``)."""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def eni_id(stream: Stream) -> str:
    """An ENI's id in the long format: ``eni-`` and 17 hex digits, the first 0 as EC2 has given for years."""
    return f"eni-0{stream.bits(64):016x}"


def instance_id(stream: Stream) -> str:
    """An instance's id in the long format."""
    return f"i-0{stream.bits(64):016x}"


def subnet_id(stream: Stream) -> str:
    """A subnet's id in the long format."""
    return f"subnet-0{stream.bits(64):016x}"


def port_chain_hash(text: str) -> str:
    """16 characters of base32(sha256(text)): the end of kube-proxy's KUBE-SVC-, KUBE-SEP- and similar chain names.

    Source: kubernetes/pkg/proxy/iptables/proxier.go:portProtoHash, v1.34.1.
    """
    return base64.b32encode(hashlib.sha256(text.encode()).digest())[:16].decode()


_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def is_dns_subdomain(text: str) -> bool:
    """Whether an object may be called so (RFC 1123 subdomain, at most 253 characters).

    Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go:IsDNS1123Subdomain, v1.34.1.
    """
    return len(text) <= 253 and _DNS_SUBDOMAIN.fullmatch(text) is not None
