"""The order in which Go visits a map: random, but not uniform, and ipamd's choices hang on it.

A map that never held more than 8 entries is one group of 8 slots: a walk starts at a random slot and goes round,
skipping empty ones; a new key takes the lowest empty slot. A larger map lies in the order of a hash with a random seed;
its walk starts anywhere and goes round (assumption: any entry is equally likely to come first).
Called by the datastore and ipamd through :class:`MapOrder`, which a replay replaces by the recorded choices.

Source: golang/go src/internal/runtime/maps/table.go:Iter.Next, map.go:putSlotSmall, Go 1.24 and later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eksim.aws.metadata import Attached
from eksim.engine.streams import Stream

GROUP = 8


class GoMap:
    """The keys of a Go map by slot; None is an empty slot. ``large``: it once outgrew its one group."""

    __slots__ = ("count", "large", "slots")

    def __init__(self) -> None:
        self.slots: list[int | None] = []
        self.count = 0
        self.large = False

    def __len__(self) -> int:
        return self.count

    def __contains__(self, key: int) -> bool:
        return key in self.slots

    def __iter__(self) -> Iterator[int]:
        """The keys by slot: for sums and searches where order plays no part."""
        return (key for key in self.slots if key is not None)

    def remove(self, key: int) -> None:
        """Forget a key."""
        slots = self.slots
        i = slots.index(key)
        if self.large:
            del slots[i]
        else:
            slots[i] = None
        self.count -= 1


class MapOrder:
    """Draws the order of walks as Go does. ``what`` names the walk, for a replay that follows recorded choices."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def add(self, map: GoMap, key: int) -> None:
        """A new key. Which place it gets is drawn once the map has outgrown its group."""
        slots = map.slots
        map.count += 1
        if map.large:
            slots.insert(self._stream.randrange(len(slots) + 1), key)
            return
        if map.count <= GROUP:
            for i, held in enumerate(slots):
                if held is None:
                    slots[i] = key
                    return
            slots.append(key)
            return
        map.large = True
        map.slots = list(self._stream.shuffled([k for k in slots if k is not None] + [key]))

    def walk(self, what: str, map: GoMap, node: str) -> Sequence[int]:
        """All keys in the order of one walk."""
        slots = map.slots
        start = self._stream.randrange(len(slots) if map.large else GROUP)
        if map.large:
            return [k for k in slots[start:] + slots[:start] if k is not None]
        return [k for k in slots[start:] if k is not None] + [k for k in slots[:start] if k is not None]

    def walk_copy(self, what: str, map: GoMap, node: str) -> Sequence[int]:
        """All keys in the order of a walk over a copy of the map, which was itself filled by a walk.

        Source: amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:GetENIInfos, v1.23.1.
        """
        copy = GoMap()
        copy.slots = list(self.walk(what, map, node))
        copy.count = len(copy.slots)
        copy.large = copy.count > GROUP
        return self.walk(what, copy, node)

    def walk_enis(self, what: str, enis: Sequence[Attached], node: str) -> Sequence[int]:
        """Places in ``enis`` in the order of one walk over a map just made of them."""
        places = GoMap()
        for place in range(len(enis)):
            self.add(places, place)
        return self.walk(what, places, node)
