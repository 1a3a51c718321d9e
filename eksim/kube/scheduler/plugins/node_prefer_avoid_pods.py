"""NodePreferAvoidPods (up to 1.22): nodes whose annotation names the pod's controller are avoided.

Mimics ``plugins/nodepreferavoidpods/node_prefer_avoid_pods.go``.
"""

from __future__ import annotations

import json
from typing import Final

from eksim.kube.scheduler.framework import MAX_NODE_SCORE, CycleState, Plugin
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo

NAME: Final = "NodePreferAvoidPods"
ANNOTATION: Final = "scheduler.alpha.kubernetes.io/preferAvoidPods"


class NodePreferAvoidPods(Plugin):
    """100, or 0 on a node that would rather not."""

    name = NAME

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: kubernetes/pkg/scheduler/framework/plugins/nodepreferavoidpods/node_prefer_avoid_pods.go:Score,
        v1.21.9."""
        assert node.node is not None
        text = node.node.annotations.get(ANNOTATION)
        owner = pod.pod.owner
        if text is None or owner is None or owner.kind not in ("ReplicationController", "ReplicaSet"):
            return MAX_NODE_SCORE
        try:
            avoids = json.loads(text).get("preferAvoidPods") or ()
            controllers = [((avoid.get("podSignature") or {}).get("podController") or {}) for avoid in avoids]
        except (ValueError, AttributeError):
            return MAX_NODE_SCORE
        for controller in controllers:
            if controller.get("kind") == owner.kind and controller.get("uid") == owner.uid:
                return 0
        return MAX_NODE_SCORE
