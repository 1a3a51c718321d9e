"""ImageLocality: nodes that have the pod's images score higher, the more so the more nodes have them.

Mimics ``plugins/imagelocality/image_locality.go``.
"""

from __future__ import annotations

from typing import Final

from eksim.kube.scheduler.framework import MAX_NODE_SCORE, CycleState, Plugin
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo

NAME: Final = "ImageLocality"
MB: Final = 1024 * 1024
MIN_THRESHOLD: Final = 23 * MB
MAX_CONTAINER_THRESHOLD: Final = 1000 * MB


def normalized_image_name(name: str) -> str:
    """With ``:latest`` if there is no tag; a digest counts as one.

    Source: kubernetes/pkg/scheduler/framework/plugins/imagelocality/image_locality.go:normalizedImageName, v1.34.1.
    """
    return name + ":latest" if name.rfind(":") <= name.rfind("/") else name


def scaled_image_score(size: int, nodes_with_image: int, nodes_total: int) -> int:
    """An image's size, scaled by how many of the nodes have it.

    Source: image_locality.go:scaledImageScore, v1.34.1.
    """
    return int(float(size) * (nodes_with_image / nodes_total))


def calculate_priority(sum_scores: int, containers: int) -> int:
    """Between 23 MiB (0) and 1000 MiB per container (100).

    Source: image_locality.go:calculatePriority, v1.34.1.
    """
    highest = MAX_CONTAINER_THRESHOLD * containers
    clamped = min(max(sum_scores, MIN_THRESHOLD), highest)
    return MAX_NODE_SCORE * (clamped - MIN_THRESHOLD) // (highest - MIN_THRESHOLD)


class ImageLocality(Plugin):
    """Prefers nodes where less has to be pulled."""

    name = NAME

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: image_locality.go:Score, sumImageScores, v1.34.1."""
        images = node.images
        if not images:
            return 0
        total = 0
        nodes_total = len(state.handle.cache.order)
        wanted = pod.facts.spec.images
        for image in wanted:
            found = images.get(normalized_image_name(image))
            if found is not None:
                total += scaled_image_score(*found, nodes_total)
        return calculate_priority(total, len(wanted))
