"""The vocabulary of change: one code per kind of change that the store can make.

A watcher is called as ``watcher(subject, detail)``; what the two are stands beside each code.
"""

from __future__ import annotations

from enum import IntEnum


class Verb(IntEnum):
    """What happened. ``old`` is a snapshot from before the change; None where only simple fields changed."""

    POD_CREATED = 0  # pod, None
    POD_BOUND = 1  # pod, None: spec.nodeName set, PodScheduled True
    POD_STATUS = 2  # pod, None: phase, readiness, address, reason, waiting, restarts, started
    POD_CONDITION = 3  # pod, old: PodScheduled False or its message, nominatedNodeName (the scheduler's status patch)
    POD_UPDATED = 4  # pod, old: metadata or mutable spec (labels, annotations, tolerations, gates, owner)
    POD_DELETING = 5  # pod, None: deletion begun, grace running
    POD_DELETED = 6  # pod, None: the object is gone
    NODE_ADDED = 7  # node, None
    NODE_UPDATED = 8  # node, old
    NODE_DELETED = 9  # node, None
    OBJECT_CREATED = 10  # object, None
    OBJECT_UPDATED = 11  # object, old: spec, metadata or status
    OBJECT_DELETED = 12  # object, None
    EVENT_RECORDED = 13  # stored event (kube.events), old or None
    SUBNET_CHANGED = 14  # subnet, None: its free addresses changed
    ENI_ATTACHED = 15  # eni, None: now ethN of a node
    ENI_DETACHED = 16  # eni, None
    ENI_ADDRESSES = 17  # eni, None: EC2 gave it addresses or prefixes, or took some
    EC2_CALL = 18  # finished call (aws.ec2), None
    POOL_CHANGED = 19  # node name, pool statistics: ipamd's datastore grew or shrank
    ADDRESS_ASSIGNED = 20  # node name, (address, sandbox key): a pod sandbox got it
    ADDRESS_RELEASED = 21  # node name, (address, sandbox key): it cools from now on
    NODE_READY = 22  # node, None: the Ready condition changed
    NOTE = 23  # text, None: a scenario's note or a look
    FAULT = 24  # description, None: something broke or healed by a scenario's step
