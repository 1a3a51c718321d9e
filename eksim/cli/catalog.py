"""``eksim instance-types`` and ``eksim max-pods``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from eksim.cli.output import Format, print_rows

Output = Annotated[Format, typer.Option("-o", "--output", help="Output format.")]


def instance_types(
    pattern: Annotated[str, typer.Argument(help="Globs of type names, joined by commas.")] = "*",
    output: Output = Format.table,
) -> None:
    """ENI and address limits, size, max-pods and price of EC2 instance types."""
    from eksim.catalog.limits import max_pods
    from eksim.catalog.types import match

    rows = [
        {
            "instance_type": t.name,
            "max_enis": t.listed_enis,
            "ipv4_per_eni": t.ipv4_per_eni,
            "vcpu": t.vcpu,
            "memory_mib": t.memory_mib,
            "architecture": t.architecture,
            "hypervisor": t.hypervisor,
            "network_cards": len(t.network_cards) or None,
            "max_pods": max_pods(t).pods,
            "usd_per_hour": t.usd_per_hour,
        }
        for t in match(pattern)
    ]
    columns = list(rows[0])
    if output is Format.table:
        columns = ["instance_type", "max_enis", "ipv4_per_eni", "vcpu", "memory_mib", "max_pods", "usd_per_hour"]
    titles = ("TYPE", "MAX ENIS", "IPV4 PER ENI", "VCPU", "MEMORY MIB", "MAX PODS", "USD PER HOUR")
    print_rows(rows, columns, output, titles)


def max_pods_command(
    instance_type: Annotated[str, typer.Argument(help="An instance type or a glob; none with --all.")] = "",
    all_types: Annotated[bool, typer.Option("--all", help="A table of all types.")] = False,
    prefix_delegation: Annotated[bool, typer.Option(help="Count a /28 per slot (nitro types, CNI ≥ 1.9).")] = False,
    custom_networking: Annotated[bool, typer.Option(help="The primary ENI gives no pod addresses.")] = False,
    max_eni: Annotated[int | None, typer.Option(help="The CNI's MAX_ENI.")] = None,
    cni_version: Annotated[str, typer.Option(help="VPC CNI release.")] = "v1.23.1",
    cap: Annotated[bool, typer.Option(help="Cap at 110 (up to 30 vCPUs) or 250, as EKS recommends.")] = False,
    output: Output = Format.table,
) -> None:
    """How many pods a node takes, and how that comes about."""
    from eksim.catalog.limits import MaxPods, max_pods
    from eksim.catalog.types import InstanceType, match
    from eksim.errors import InputError
    from eksim.versions import parse_version

    if bool(instance_type) == all_types:
        raise InputError("one of an instance type and --all is needed", expected="eksim max-pods t3.medium, or --all")
    parse_version(cni_version)
    types = match("*" if all_types else instance_type)

    def figure(t: InstanceType) -> MaxPods:
        return max_pods(
            t,
            prefix_delegation=prefix_delegation,
            custom_networking=custom_networking,
            max_eni=max_eni,
            cni_version=cni_version,
            # a type without a known vCPU has no known cap; in a table its figure stays uncapped and says so
            cap=cap and (len(types) == 1 or t.vcpu is not None),
        )

    found = [(t, figure(t)) for t in types]
    if output is Format.table and len(found) == 1:
        t, m = found[0]
        print(f"{t.name}: {m.pods} pods")
        print(f"  {m.formula}")
        for note in m.notes:
            print(f"  note: {note}")
        return
    rows: list[dict[str, Any]] = [
        {
            "instance_type": t.name,
            "max_pods": m.pods,
            "enis": m.enis,
            "ipv4_per_eni": t.ipv4_per_eni,
            "addresses": m.enis * m.addresses_per_eni,
            "notes": "; ".join([*m.notes, *(["vCPU unknown: not capped"] if cap and t.vcpu is None else [])]),
        }
        for t, m in found
    ]
    print_rows(rows, list(rows[0]), output, ("TYPE", "MAX PODS", "ENIS", "IPV4 PER ENI", "ADDRESSES", "NOTES"))
