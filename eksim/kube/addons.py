"""What runs on every EKS cluster: aws-node, kube-proxy and coredns as manifests, with their real resource requests.

Sources: amazon-vpc-cni-k8s/config/v1.9 and config/master/aws-k8s-cni.yaml; eksctl/pkg/addons/default/assets
coredns-1.21.json, coredns-1.34.json and the kube-proxy sample of 1.21. Volumes and most environment are left out: nothing
here reads them. The documents are shared by all clusters of the process, and read only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

Json = dict[str, Any]

EVERYTHING: list[Json] = [{"operator": "Exists"}]
IMAGE_REPOSITORY = "602401143452.dkr.ecr.{region}.amazonaws.com"


def _linux(*further: Json) -> Json:
    expressions = [
        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
        *further,
    ]
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    }


_NOT_FARGATE = {"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate"]}
_NOT_MANAGED = {"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate", "hybrid", "auto"]}


def _daemon_set(name: str, label: str, spec: Json) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": label}},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": label}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": {"k8s-app": label}}, "spec": spec},
        },
    }


@lru_cache(maxsize=64)
def aws_node(cni_version: str, region: str, today: bool) -> Json:
    """The VPC CNI's DaemonSet. ``today``: two containers of 25m instead of one of 10m."""
    registry = IMAGE_REPOSITORY.format(region=region)
    probe = {"exec": {"command": ["/app/grpc-health-probe", "-addr=:50051"]}, "initialDelaySeconds": 1}
    policy = "IfNotPresent" if today else "Always"
    containers: list[Json] = [
        {
            "name": "aws-node",
            "image": f"{registry}/amazon-k8s-cni:{cni_version}",
            "imagePullPolicy": policy,
            "resources": {"requests": {"cpu": "25m" if today else "10m"}},
            "readinessProbe": probe,
        }
    ]
    if today:
        containers.append(
            {
                "name": "aws-eks-nodeagent",
                "image": f"{registry}/amazon/aws-network-policy-agent:v1.2.7",
                "resources": {"requests": {"cpu": "25m"}},
            }
        )
    init: Json = {
        "name": "aws-vpc-cni-init",
        "image": f"{registry}/amazon-k8s-cni-init:{cni_version}",
        "imagePullPolicy": policy,
    }
    if today:
        init["resources"] = {"requests": {"cpu": "25m"}}
    return _daemon_set(
        "aws-node",
        "aws-node",
        {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "serviceAccountName": "aws-node",
            "terminationGracePeriodSeconds": 10,
            "tolerations": EVERYTHING,
            "affinity": {"nodeAffinity": _linux(_NOT_MANAGED if today else _NOT_FARGATE)},
            "initContainers": [init],
            "containers": containers,
        },
    )


@lru_cache(maxsize=64)
def kube_proxy(kubernetes_version: str, region: str, today: bool) -> Json:
    """kube-proxy's DaemonSet."""
    registry = IMAGE_REPOSITORY.format(region=region)
    return _daemon_set(
        "kube-proxy",
        "kube-proxy",
        {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "serviceAccountName": "kube-proxy",
            "tolerations": EVERYTHING,
            "affinity": {"nodeAffinity": _linux(_NOT_MANAGED if today else _NOT_FARGATE)},
            "containers": [
                {
                    "name": "kube-proxy",
                    "image": f"{registry}/eks/kube-proxy:v{kubernetes_version}-eksbuild.2",
                    "resources": {"requests": {"cpu": "100m"}},
                }
            ],
        },
    )


@lru_cache(maxsize=64)
def coredns(kubernetes_version: str, region: str, replicas: int, today: bool) -> Json:
    """coredns' Deployment: preferred anti-affinity on hostname; today also a soft spread over zones."""
    registry = IMAGE_REPOSITORY.format(region=region)
    labels = {"eks.amazonaws.com/component": "coredns", "k8s-app": "kube-dns"}
    term = {
        "labelSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns"]}]},
        "topologyKey": "kubernetes.io/hostname",
    }
    spec: Json = {
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "tolerations": [
            {
                "key": "node-role.kubernetes.io/control-plane" if today else "node-role.kubernetes.io/master",
                "effect": "NoSchedule",
            },
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
        "affinity": {
            "nodeAffinity": _linux(),
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
            },
        },
        "containers": [
            {
                "name": "coredns",
                "image": f"{registry}/eks/coredns:" + ("v1.12.3-eksbuild.1" if today else "v1.8.4-eksbuild.1"),
                "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}, "limits": {"memory": "170Mi"}},
                "readinessProbe": {
                    "httpGet": {"path": "/ready", "port": 8181} if today else {"path": "/health", "port": 8080},
                },
            }
        ],
    }
    if today:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def host_agent(number: int, groups: list[str]) -> Json:
    """A further host-network pod on each node of some groups, for a node group's ``hostNetworkPods``."""
    name = f"host-agent-{number}"
    group = {"key": "eks.amazonaws.com/nodegroup", "operator": "In", "values": groups}
    return _daemon_set(
        name,
        name,
        {
            "hostNetwork": True,
            "tolerations": EVERYTHING,
            "affinity": {"nodeAffinity": _linux(group)},
            "containers": [{"name": "agent", "image": "host-agent:1"}],
        },
    )
