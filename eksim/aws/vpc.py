"""Subnets as address spaces: reading CIDRs, and which free address or /28 EC2 hands out.

AWS does not document its order. Seen in real clusters: single addresses come from all over the subnet, which is what
fragments it for prefixes; so :class:`Scattered` is the simulation's placement. :class:`Sequential` goes on from where it
last stopped, addresses upwards and /28s downwards, as the recordings' EC2 does. Pure reading; the marks are made by
:class:`eksim.state.network.Network`. Called by :mod:`eksim.aws.ec2` and the scenario loader.
"""

from __future__ import annotations

import ipaddress

from eksim.engine.streams import Stream
from eksim.errors import InputError
from eksim.state.network import PREFIX_SIZE, Subnet

#: A subnet is a /28 to a /16. Source: Amazon VPC user guide, "Subnet CIDR blocks".
LONGEST = 28
SHORTEST = 16


def parse_cidr(text: str, *, subnet: bool = True) -> tuple[int, int]:
    """``10.0.0.0/20`` → (first address as int, prefix length). Raises InputError, for a subnet also outside /16…/28."""
    try:
        net = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not an IPv4 CIDR: {error}", expected="such as 192.168.1.0/24") from None
    if subnet and not SHORTEST <= net.prefixlen <= LONGEST:
        raise InputError(
            f"{text} has {net.num_addresses} addresses", expected="a subnet between /28 (16 addresses) and /16 (65536)"
        )
    return int(net.network_address), net.prefixlen


def parse_address(text: str) -> int:
    """``192.168.1.90`` → int. Raises InputError."""
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        raise InputError(f"{text!r} is not an IPv4 address", expected="such as 192.168.1.90") from None


class Sequential:
    """Addresses upwards through the subnet, /28s downwards, each from where it last stopped; both wrap around."""

    def address(self, subnet: Subnet) -> int:
        """The next free address at or above the cursor."""
        offset = subnet.next_address
        blocks = subnet.blocks
        while True:
            if offset >= subnet.size:
                offset = 0
            mask = blocks[offset >> 4]
            if mask == 0xFFFF:
                offset = (offset | 15) + 1
            elif mask >> (offset & 15) & 1:
                offset += 1
            else:
                subnet.next_address = offset + 1
                return offset

    def block(self, subnet: Subnet) -> int:
        """The next wholly free /28 at or below the cursor."""
        block = subnet.next_block
        while True:
            if block < 0:
                block = len(subnet.blocks) - 1
            if subnet.blocks[block] == 0:
                subnet.next_block = block - 1
                return block
            block -= 1


class Scattered:
    """Any free address or /28 of the subnet (assumption: AWS documents no order)."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def address(self, subnet: Subnet) -> int:
        """A random free address; in a nearly full subnet the first free one after a random place."""
        randrange = self._stream.randrange
        for _ in range(8):
            offset = randrange(subnet.size)
            if subnet.is_free(offset):
                return offset
        blocks = subnet.blocks
        block = randrange(len(blocks))
        while blocks[block] == 0xFFFF:
            block = block + 1 if block + 1 < len(blocks) else 0
        free = [bit for bit in range(PREFIX_SIZE) if not blocks[block] >> bit & 1]
        return block * PREFIX_SIZE + self._stream.choice(free)

    def block(self, subnet: Subnet) -> int:
        """The first wholly free /28 after a random place."""
        blocks = subnet.blocks
        start = self._stream.randrange(len(blocks))
        try:
            return blocks.index(0, start)
        except ValueError:
            return blocks.index(0)


def top_addresses(subnet: Subnet, n: int) -> list[int]:
    """The offsets of the ``n`` highest free addresses, highest first; fewer if there are fewer."""
    found: list[int] = []
    for offset in range(subnet.size - 1, -1, -1):
        if len(found) == n:
            break
        if subnet.is_free(offset):
            found.append(offset)
    return found


def scattered_addresses(subnet: Subnet, n: int, stream: Stream) -> list[int]:
    """``n`` random free addresses (offsets) that others would hold; fewer if there are fewer."""
    free = [offset for offset in range(subnet.size) if subnet.is_free(offset)]
    return sorted(stream.shuffled(free)[:n])
