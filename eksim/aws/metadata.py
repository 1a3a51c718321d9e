"""The instance metadata service (IMDS) as ipamd reads it: an instance's interfaces, possibly late.

Metadata shows an ENI from a while after its attachment, each address from a while after it was assigned, and both for a
while after they are gone. Without lag nothing is kept: metadata is the truth. Leaves out: every path but the list of
interfaces and what hangs below it. Called by :mod:`eksim.aws.ec2` (which records changes here) and ipamd (which reads).
"""

from __future__ import annotations

from typing import NamedTuple

from eksim.engine.streams import Latency, Stream
from eksim.state.network import NEVER, Eni, Instance

#: Times are compared as if they were whole microseconds, so that a lag that is over at the moment of a look is over.
EPSILON_S = 5e-7


class MetadataLag:
    """How far metadata is behind, seconds: ``eni`` after an attach, ``cidr`` (plus ``each`` per earlier address of the
    same call) after an assign, ``remove`` after something is gone."""

    __slots__ = ("_stream", "cidr", "each_s", "eni", "remove")

    def __init__(
        self, stream: Stream, eni: Latency, cidr: Latency, remove: Latency, each_s: float = 0.0
    ) -> None:
        self._stream = stream
        self.eni = eni
        self.cidr = cidr
        self.remove = remove
        self.each_s = each_s

    def on_attach(self, eni: Eni, now: float) -> None:
        """The ENI, and what it was created with, will show after a while."""
        eni.visible_s = visible = now + self.eni.draw(self._stream)
        lag = self.cidr.draw(self._stream)
        each = self.each_s
        if visible <= now and lag <= 0 and each <= 0:
            return
        eni.shows = [[item, max(visible, now + lag + k * each), NEVER] for k, item in enumerate(eni.items)]

    def on_assign(self, eni: Eni, items: list[int], now: float) -> None:
        """New items of an attached ENI."""
        lag = self.cidr.draw(self._stream)
        each = self.each_s
        if lag <= 0 and each <= 0:
            if eni.shows is not None:
                eni.shows += [[item, max(eni.visible_s, now), NEVER] for item in items]
            return
        new = dict.fromkeys(items)
        shows = eni.shows
        if shows is None:
            shows = [[item, eni.visible_s, NEVER] for item in eni.items if item not in new]
        eni.shows = shows + [[item, max(eni.visible_s, now + lag + k * each), NEVER] for k, item in enumerate(items)]

    def on_take_back(self, eni: Eni, items: list[int], now: float) -> None:
        """Items that are about to be taken from an attached ENI."""
        lag = self.remove.draw(self._stream)
        if lag <= 0 and eni.shows is None:
            return
        if eni.shows is None:
            eni.shows = [[item, eni.visible_s, NEVER] for item in eni.items]
        gone = dict.fromkeys(items)
        for entry in eni.shows:
            if entry[0] in gone and entry[2] == NEVER:
                entry[2] = now + lag

    def on_detach(self, eni: Eni, instance: Instance, now: float) -> None:
        """An ENI that is about to leave its slot, or that has been lost."""
        lag = self.remove.draw(self._stream)
        if lag > 0:
            if eni.shows is None:
                eni.shows = [[item, eni.visible_s, NEVER] for item in eni.items]
            ghosts = instance.ghosts or []
            instance.ghosts = [*ghosts, (eni, eni.device, now + lag)]


class Attached(NamedTuple):
    """One interface as metadata shows it: the ENI, its device number and its items in the order of assignment."""

    eni: Eni
    device: int
    items: list[int]


def _items_shown(eni: Eni, at: float) -> list[int]:
    shows = eni.shows
    if shows is None:
        return list(eni.items)
    at += EPSILON_S
    return list(dict.fromkeys(int(item) for item, start, until in shows if start <= at < until))


def attached_enis(instance: Instance, at: float, *, caught_up: bool = False) -> list[Attached]:
    """The instance's interfaces as metadata shows them at ``at`` (not before now), by device number.

    ``caught_up``: ``at`` is known not to lie before :func:`last_change_s`.
    """
    found = [
        Attached(eni, device, list(eni.items) if caught_up or eni.shows is None else _items_shown(eni, at))
        for device, eni in instance.enis.items()
        if eni.visible_s <= at + EPSILON_S
    ]
    if len(found) < 2 and not instance.ghosts:
        return found
    if instance.ghosts:
        found += [
            Attached(eni, device, _items_shown(eni, at))
            for eni, device, until in instance.ghosts
            if eni.visible_s <= at + EPSILON_S < until
        ]
    found.sort(key=_by_device)
    return found


def _by_device(attached: Attached) -> int:
    return attached.device


def last_change_s(instance: Instance, now: float) -> float:
    """When metadata will have caught up with the truth if nothing more happens; ``now`` if it has.

    Forgets what is settled, so that an instance whose metadata has caught up costs nothing.
    """
    latest = now
    if instance.ghosts:
        instance.ghosts = [ghost for ghost in instance.ghosts if ghost[2] > now] or None
        for _, _, until in instance.ghosts or ():
            latest = max(latest, until)
    for eni in instance.enis.values():
        latest = max(latest, eni.visible_s)
        shows = eni.shows
        if shows is None:
            continue
        open_until = now
        for _, start, until in shows:
            if start > open_until:
                open_until = start
            if now < until < NEVER and until > open_until:
                open_until = until
        if open_until <= now and eni.visible_s <= now:
            eni.shows = None
        elif open_until > latest:
            latest = open_until
    return latest
