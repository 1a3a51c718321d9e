"""Every duration that no rule fixes, by name, with its default: what a scenario's ``latency`` may override.

A name is ``component/what``; the kubelet's and the control plane's stand here, EC2's calls are ``ec2/<API>``. Values are
those of the EKS, Kubernetes and CNI sources named in docs/fidelity.md, or assumptions said to be so there.
"""

from __future__ import annotations

import difflib
import re

from eksim.engine.streams import NO_LATENCY, Latency
from eksim.units import parse_duration

#: name → default. Seconds; lognormal by median and 95th percentile.
DEFAULTS: dict[str, Latency] = {
    # kubelet: from the bound pod to the running pod, and back
    "kubelet/watch": Latency("uniform", 0.002, 0.02),
    "kubelet/volumes": Latency("uniform", 0.1, 0.3),
    "kubelet/sandbox": Latency("uniform", 0.2, 0.5),
    "kubelet/cni-add": Latency("uniform", 0.05, 0.3),
    "kubelet/cni-del": Latency("uniform", 0.05, 0.3),
    "kubelet/start": Latency("uniform", 0.2, 0.6),
    "kubelet/stop": Latency("uniform", 0.05, 0.5),
    "kubelet/gone-today": Latency("uniform", 0.5, 2.0),
    "kubelet/gone-then": Latency("uniform", 1.0, 12.0),
    "kubelet/network-ready": Latency("uniform", 0.2, 5.0),
    "kubelet/pull-overhead": Latency("constant", 0.5),
    "kubelet/pull-mib": Latency("uniform", 0.01, 0.02),
    # control plane
    "scheduler/cycle": Latency("uniform", 0.0003, 0.002),
    "scheduler/bind": Latency("uniform", 0.003, 0.02),
    "controllers/call": Latency("constant", 0.005),
    # EC2 and instance metadata: docs of the VPC CNI where it has figures, else assumptions
    "ec2/AssignPrivateIpAddresses": Latency("uniform", 0.3, 1.0),
    "ec2/UnassignPrivateIpAddresses": Latency("uniform", 0.3, 1.0),
    "ec2/CreateNetworkInterface": Latency("uniform", 0.2, 0.6),
    "ec2/AttachNetworkInterface": Latency("uniform", 1.0, 3.0),
    "ec2/DetachNetworkInterface": Latency("uniform", 0.3, 1.0),
    "ec2/DeleteNetworkInterface": Latency("uniform", 0.2, 0.6),
    "ec2/ModifyNetworkInterfaceAttribute": Latency("uniform", 0.1, 0.3),
    "ec2/DescribeNetworkInterfaces": Latency("uniform", 0.1, 0.3),
    "ec2/DescribeInstances": Latency("uniform", 0.1, 0.3),
    "ec2/DescribeSubnets": Latency("uniform", 0.1, 0.3),
    "ec2/DescribeInstanceTypes": Latency("uniform", 0.1, 0.3),
    "ec2/CreateTags": Latency("uniform", 0.1, 0.3),
    "ec2/detach": Latency("uniform", 1.0, 10.0),
    "metadata/eni": Latency("lognormal", 1.0, 6.0),
    "metadata/address": Latency("lognormal", 1.0, 6.0),
    "ipamd/start": Latency("uniform", 0.5, 1.5),
}

_CALL = re.compile(r"^(uniform|lognormal)\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)$")


def parse_latency(text: str) -> Latency:
    """``2s``, ``uniform(1s, 2s)``, ``lognormal(1s, 3s)`` (median, 95th percentile). Raises ValueError."""
    match = _CALL.match(text.strip())
    if not match:
        return Latency("constant", _not_negative(text.strip()))
    kind, a, b = match[1], _not_negative(match[2]), _not_negative(match[3])
    if a > b or (kind == "lognormal" and not 0 < a < b):
        raise ValueError(f"{text!r}: the first value must be below the second" + (", and above 0" if kind != "uniform" else ""))
    return Latency(kind, a, b)


def _not_negative(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < 0:
        raise ValueError(f"{text!r} is negative: a latency is 0s or more")
    return seconds


def latencies(setting: str | dict[str, str]) -> dict[str, Latency]:
    """The run's latencies: ``default``, ``none`` (all zero), or the defaults with some names overridden.

    Raises ValueError naming the nearest name.
    """
    if setting == "none":
        return dict.fromkeys(DEFAULTS, NO_LATENCY)
    out = dict(DEFAULTS)
    if isinstance(setting, dict):
        for name, text in setting.items():
            if name not in DEFAULTS:
                near = difflib.get_close_matches(name, DEFAULTS, n=1, cutoff=0.4)
                raise ValueError(f"no latency is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
            out[name] = parse_latency(text)
    return out
