"""Build the catalogue's table from its sources: ``python -m eksim.catalog.build [--refresh-ec2]``.

Sources, kept as CSV in ``eksim/catalog/sources``:

- ``vpc_limits.csv``: networking limits as the VPC CNI v1.23.1 and the Karpenter AWS provider use them (2026-08);
- ``on_demand_prices.csv``: Linux on-demand USD per hour, us-east-1, 2026-07-20, from the Karpenter AWS provider;
- ``ec2_instance_types.csv``: vCPU, memory, architecture and network cards as EC2's DescribeInstanceTypes gives them, of
  which moto (5.2.5) carries a copy; ``--refresh-ec2`` writes it anew (needs the extra ``eksim[catalog]``).

How they disagree: for i7ie.48xlarge, i7ie.metal-48xl, i8ge.48xlarge and i8ge.metal-48xl the CNI's table counts the ENIs of
all network cards as the first card's. The table keeps both: ``max_enis`` is what card 0 takes, ``listed_enis`` what the
CNI (and the published max-pods list) believes. Unknown cells stay empty.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
TABLE = HERE / "data" / "instance_types.tsv"
COLUMNS = (
    "instance_type",
    "max_enis",
    "listed_enis",
    "ipv4_per_eni",
    "network_cards",
    "hypervisor",
    "bare_metal",
    "vcpu",
    "memory_mib",
    "architecture",
    "trunking",
    "branch_enis",
    "usd_per_hour",
)
EC2_COLUMNS = (
    "instance_type",
    "max_enis_default_card",
    "ipv4_per_eni",
    "network_cards",
    "hypervisor",
    "bare_metal",
    "vcpu",
    "memory_mib",
    "architecture",
)


def _rows(name: str) -> dict[str, dict[str, str]]:
    with (SOURCES / name).open(newline="") as file:
        return {row["instance_type"]: row for row in csv.DictReader(file)}


def refresh_ec2() -> None:
    """Write ``ec2_instance_types.csv`` from moto's copy of DescribeInstanceTypes."""
    os.environ.update(AWS_ACCESS_KEY_ID="-", AWS_SECRET_ACCESS_KEY="-", AWS_DEFAULT_REGION="us-east-1")
    import boto3
    from moto import mock_aws

    types: list[dict[str, Any]] = []
    with mock_aws():
        for page in boto3.client("ec2").get_paginator("describe_instance_types").paginate():
            types += page["InstanceTypes"]
    with (SOURCES / "ec2_instance_types.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(EC2_COLUMNS)
        for entry in sorted(types, key=lambda t: str(t["InstanceType"])):
            network = entry["NetworkInfo"]
            cards = network["NetworkCards"]
            default = cards[network.get("DefaultNetworkCardIndex", 0)]
            writer.writerow(
                [
                    entry["InstanceType"],
                    default["MaximumNetworkInterfaces"],
                    network["Ipv4AddressesPerInterface"],
                    ";".join(f"{c['NetworkCardIndex']}:{c['MaximumNetworkInterfaces']}" for c in cards),
                    entry.get("Hypervisor", ""),
                    int(entry["BareMetal"]),
                    entry["VCpuInfo"]["DefaultVCpus"],
                    entry["MemoryInfo"]["SizeInMiB"],
                    "arm64" if entry["ProcessorInfo"]["SupportedArchitectures"][0].startswith("arm64") else "x86_64",
                ]
            )


def build() -> int:
    """Merge the sources into ``data/instance_types.tsv``; returns the number of types."""
    limits = _rows("vpc_limits.csv")
    prices = _rows("on_demand_prices.csv")
    ec2 = _rows("ec2_instance_types.csv")
    lines = ["\t".join(COLUMNS)]
    for name in sorted(limits.keys() | ec2.keys()):
        listed, seen = limits.get(name, {}), ec2.get(name, {})
        cells = {
            "instance_type": name,
            "max_enis": seen.get("max_enis_default_card") or listed.get("max_enis_default_card", ""),
            "listed_enis": listed.get("max_enis_default_card") or seen.get("max_enis_default_card", ""),
            "ipv4_per_eni": listed.get("ipv4_per_eni") or seen.get("ipv4_per_eni", ""),
            "network_cards": seen.get("network_cards") or listed.get("network_cards", ""),
            "hypervisor": (seen.get("hypervisor") or listed.get("hypervisor", "")).replace("unknown", ""),
            "bare_metal": seen.get("bare_metal") or listed.get("bare_metal", ""),
            "vcpu": seen.get("vcpu", ""),
            "memory_mib": seen.get("memory_mib", ""),
            "architecture": seen.get("architecture", ""),
            "trunking": listed.get("trunking", ""),
            "branch_enis": listed.get("branch_enis", ""),
            "usd_per_hour": prices.get(name, {}).get("usd_per_hour", ""),
        }
        lines.append("\t".join(cells[column] for column in COLUMNS))
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")
    return len(lines) - 1


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description="Build eksim's instance type table from its sources.")
    parser.add_argument("--refresh-ec2", action="store_true", help="write ec2_instance_types.csv anew from moto")
    if parser.parse_args().refresh_ec2:
        refresh_ec2()
    print(f"{build()} instance types in {TABLE.name}")


if __name__ == "__main__":
    main()
