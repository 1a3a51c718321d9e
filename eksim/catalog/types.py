"""EC2 instance types: looking up one, many by glob, and the nearest to a misspelt name.

The table is text beside this module; a line is parsed when its type is asked for, so that a lookup costs about a
millisecond after start. Built by ``eksim/catalog/build.py``, which names the sources.
"""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from eksim.errors import InputError

_TABLE = Path(__file__).parent / "data" / "instance_types.tsv"


@dataclass(frozen=True)
class InstanceType:
    """What EC2 says of an instance type; ``None``: unknown in every source.

    ``max_enis``: ENIs that the default network card takes; ``listed_enis``: what the VPC CNI's own table says (for four
    types it counts all cards as one); ``ipv4_per_eni`` includes the ENI's own address; ``network_cards``: ENIs per card;
    ``branch_enis``: security-group-for-pods interfaces; ``usd_per_hour``: Linux on demand in us-east-1.
    """

    name: str
    max_enis: int
    listed_enis: int
    ipv4_per_eni: int
    network_cards: tuple[int, ...]
    hypervisor: str | None
    bare_metal: bool | None
    vcpu: int | None
    memory_mib: int | None
    architecture: str | None
    trunking: bool | None
    branch_enis: int | None
    usd_per_hour: float | None

    @cached_property
    def family(self) -> str:
        """``t3`` of ``t3.medium``."""
        return self.name.partition(".")[0]

    @property
    def is_nitro(self) -> bool:
        """Whether the hypervisor is Nitro."""
        return self.hypervisor == "nitro"

    def need(self, what: str) -> int:
        """``vcpu`` or ``memory_mib``, or an InputError that says it is unknown for this type."""
        value: int | None = getattr(self, what)
        if value is None:
            raise InputError(
                f"instance type {self.name}: {what} is not in any of the catalogue's sources",
                expected="a type whose vCPU and memory are known",
            )
        return value


@cache
def _lines() -> dict[str, str]:
    text = _TABLE.read_text()
    lines = text.split("\n")[1:]
    return {line[: line.index("\t")]: line for line in lines if line}


def _whole(cell: str) -> int | None:
    return int(cell) if cell else None


def _truth(cell: str) -> bool | None:
    return cell == "1" if cell else None


@cache
def _parse(name: str) -> InstanceType:
    cells = _lines()[name].split("\t")
    _, enis, listed, ipv4, cards, hypervisor, metal, vcpu, memory, arch, trunk, branch, usd = cells
    return InstanceType(
        name=name,
        max_enis=int(enis),
        listed_enis=int(listed),
        ipv4_per_eni=int(ipv4),
        network_cards=tuple(int(c.partition(":")[2]) for c in cards.split(";") if c),
        hypervisor=hypervisor or None,
        bare_metal=_truth(metal),
        vcpu=_whole(vcpu),
        memory_mib=_whole(memory),
        architecture=arch or None,
        trunking=_truth(trunk),
        branch_enis=_whole(branch),
        usd_per_hour=float(usd) if usd else None,
    )


def names() -> list[str]:
    """All type names, sorted."""
    return list(_lines())


def lookup(name: str) -> InstanceType:
    """The instance type of that name. Raises InputError with the nearest name."""
    if name in _lines():
        return _parse(name)
    near = difflib.get_close_matches(name, _lines(), n=1, cutoff=0.5)
    raise InputError(
        f"unknown instance type {name!r}", expected="an EC2 instance type", nearest=near[0] if near else ""
    )


def match(pattern: str) -> list[InstanceType]:
    """Types whose names match a shell glob (``t3.*``; several joined by commas), smallest family member first.

    Raises InputError if nothing matches.
    """
    found: dict[str, InstanceType] = {}
    for part in (p.strip() for p in pattern.split(",")):
        hits = fnmatch.filter(_lines(), part)
        if not hits:
            near = difflib.get_close_matches(part.replace("*", ""), _lines(), n=1, cutoff=0.3)
            raise InputError(
                f"no instance type matches {part!r}", expected="a glob such as 't3.*'", nearest=near[0] if near else ""
            )
        for name in hits:
            found[name] = _parse(name)
    return sorted(found.values(), key=lambda t: (t.family, t.vcpu or 0, t.memory_mib or 0, t.name))
