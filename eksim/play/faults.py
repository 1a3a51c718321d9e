"""A scenario's ``fault:`` made to happen: EC2 refuses calls, or others take things away behind ipamd's back."""

from __future__ import annotations

from eksim.aws.faults import Fault as Ec2Fault
from eksim.cluster import Cluster
from eksim.errors import InputError
from eksim.scenario.schema import Fault
from eksim.state.changes import Verb
from eksim.state.network import NEVER

#: Source: amazon-vpc-cni-k8s README (No manage tag), v1.23.1.
NO_MANAGE_TAG = "node.k8s.amazonaws.com/no_manage"


def apply_fault(cluster: Cluster, fault: Fault, node: str | None) -> None:
    """Break what the step says, now. Raises InputError if what it names is not there."""
    ec2, network = cluster.ec2, cluster.network
    now = cluster.clock.now
    described = fault.model_dump(exclude_defaults=True, by_alias=True)
    cluster.store.emit(Verb.FAULT, str(described))
    if fault.heal:
        ec2.faults.clear(fault.api or "")
        if fault.api is None:
            cluster.reset_metadata_lag()
        return
    if fault.metadata_lag is not None:
        cluster.set_metadata_lag(fault.metadata_lag, fault.for_)
        return
    if fault.api is not None:
        ec2.faults.add(
            Ec2Fault(
                fault.api,
                fault.code,
                node=node or "",
                subnet=fault.subnet or "",
                count=fault.count,
                since_s=now,
                until_s=now + fault.for_ if fault.for_ is not None else NEVER,
                rate=fault.rate if fault.rate is not None else 1.0,
            )
        )
        return
    if fault.take_addresses is not None or fault.release_addresses is not None:
        subnets = [cluster.subnet(fault.subnet)] if fault.subnet is not None else cluster.subnets()
        for subnet in subnets:
            if fault.take_addresses is not None:
                ec2.take_addresses(subnet, min(fault.take_addresses, subnet.free))
            if fault.release_addresses is not None:
                ec2.release_addresses(subnet, fault.release_addresses)
        return
    names = [node] if node is not None else list(network.instances)
    for name in names:
        instance = network.instances[name]
        if fault.lose_eni is not None:
            done: object = ec2.lose_eni(instance, fault.lose_eni)
        elif fault.lose_addresses is not None:
            done = ec2.lose_items(instance, fault.device, fault.lose_addresses, prefixes=fault.prefixes) is not None
        elif fault.attach_eni is not None:
            subnet = cluster.subnet(fault.subnet) if fault.subnet is not None else instance.subnet
            tags = {NO_MANAGE_TAG: "true"} if fault.no_manage else None
            count = fault.attach_eni
            done = ec2.attach_foreign_eni(
                instance,
                subnet,
                addresses=0 if fault.prefixes else count,
                prefixes=count if fault.prefixes else 0,
                tags=tags,
            )
        elif fault.detach_eni is not None:
            done = ec2.detach_eni(instance, fault.detach_eni)
        else:
            raise InputError("a fault that breaks nothing", expected="api, loseEni, takeAddresses, …")
        if not done and node is not None:
            raise InputError(f"{name} has no such interface, or no room for one", expected="a device that is there")
