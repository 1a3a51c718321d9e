"""What a shell on the node shows: ``ip link``."""

from __future__ import annotations

from eksim.state.links import Links

#: AWS_VPC_ENI_MTU's default. Source: amazon-vpc-cni-k8s README (AWS_VPC_ENI_MTU).
MTU = 9001


def ip_link(links: Links, node: str) -> str:
    """``ip link``: the loopback, ethN for each ENI, and a host-side veth (eni…) for each pod with an address."""
    lines = [
        "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000",
    ]
    for name, index in links.of(node).items():
        if name.startswith("eth"):
            lines.append(
                f"{index}: {name}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu {MTU} qdisc mq state UP mode DEFAULT "
                "group default qlen 1000"
            )
        else:
            lines.append(
                f"{index}: {name}@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu {MTU} qdisc noqueue state UP mode DEFAULT "
                "group default"
            )
    return "\n".join(lines)
