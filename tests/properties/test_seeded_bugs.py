"""The public state machine finds planted bugs within 2,000 moves each, and none where none is planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from eksim.cni.datastore import Datastore
from eksim.cni.eni import DatastoreEni
from eksim.kube import node_object
from eksim.testing.machine import ClusterMachine, InvariantBroken, explore, replay

MOVES = 2000


def address_twice(patch: pytest.MonkeyPatch) -> None:
    """With three pods on an ENI, the next one is given an address that a pod already has."""
    honest = Datastore._take_address

    def take(self: Datastore, eni: DatastoreEni, now: float) -> int | None:
        held = list(eni.assigned)
        return held[0] if len(held) >= 3 else honest(self, eni, now)

    patch.setattr(Datastore, "_take_address", take)


def short_cool_down(patch: pytest.MonkeyPatch) -> None:
    """ipamd lets an address cool for a second less than it is told to: 29 s."""
    honest = Datastore.__init__

    def init(self: Datastore, node: str, prefix_mode: bool, cooldown_s: float, *rest: Any) -> None:
        honest(self, node, prefix_mode, cooldown_s - 1, *rest)

    patch.setattr(Datastore, "__init__", init)


def one_pod_more(patch: pytest.MonkeyPatch) -> None:
    """Nodes take one pod more than the published list has."""
    honest = node_object.published_max_pods

    def more(instance: Any) -> Any:
        found = honest(instance)
        return replace(found, pods=found.pods + 1)

    patch.setattr(node_object, "published_max_pods", more)


def lost_release(patch: pytest.MonkeyPatch) -> None:
    """One address of five stays assigned when its pod gives it back."""
    honest = Datastore.unassign

    def unassign(self: Datastore, key: str, now: float) -> Any:
        return None if crc32(key.encode()) % 5 == 0 else honest(self, key, now)

    patch.setattr(Datastore, "unassign", unassign)


BUGS = {
    address_twice: "address-in-one-place",
    short_cool_down: "no-reuse-within-cool-down",
    one_pod_more: "max-pods-by-formula",
    lost_release: "released-is-free",
}


@pytest.mark.parametrize(("plant", "broken"), BUGS.items(), ids=[plant.__name__ for plant in BUGS])
def test_planted_bug_is_found(plant: Any, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Planted(ClusterMachine):
        directory = tmp_path

    plant(monkeypatch)
    with pytest.raises(InvariantBroken) as found:
        explore(Planted, moves=MOVES, shrink=False)
    assert broken in {violation.invariant for violation in found.value.violations}
    # what was written shows the bug again, and nothing once the bug is out
    [written] = tmp_path.glob("*.yaml")
    assert replay(written)
    monkeypatch.undo()
    assert not replay(written)


def test_nothing_is_found_where_nothing_is_planted(tmp_path: Path) -> None:
    class Honest(ClusterMachine):
        directory = tmp_path

    explore(Honest, moves=MOVES)
    assert not list(tmp_path.iterdir())
