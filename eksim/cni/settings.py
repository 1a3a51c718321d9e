"""aws-node's environment: the variables that ipamd reads once at its start, under their real names.

An unreadable or negative number means the default, as in the real code. Leaves out: logging, metrics, endpoints, IPv6,
several network cards, SNAT (``eksim`` prints those rules elsewhere). Called by :mod:`eksim.cni.ipamd` at each start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from eksim.versions import CniRules

#: What the manifest and the EKS add-on set where the code's own default differs.
#: Source: amazon-vpc-cni-k8s/config/master/aws-k8s-cni.yaml, v1.23.1.
MANIFEST_ENV: dict[str, str] = {"WARM_ENI_TARGET": "1", "WARM_PREFIX_TARGET": "1"}

_INTEGER = re.compile(r"[+-]?[0-9]+")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")

#: Cool-down where IP_COOLDOWN_PERIOD is unset or unreadable.
#: Source: amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:getCooldownPeriod, v1.23.1.
DEFAULT_COOLDOWN_S = 30


#: Keys of ADDITIONAL_ENI_TAGS with this in them are ignored.
#: Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go (reservedTagKeyPrefix), v1.23.1.
RESERVED_TAG_PREFIX = "k8s.amazonaws.com"


def atoi(text: str) -> int | None:
    """Go's strconv.Atoi: an optional sign and decimal digits, nothing else, of 64 bits; None if it is not that."""
    if not _INTEGER.fullmatch(text) or not text.isascii() or len(text.lstrip("+-0")) > 19:
        return None
    value = int(text)
    return value if -(1 << 63) <= value < 1 << 63 else None


def parse_bool(text: str, default: bool) -> bool:
    """Go's strconv.ParseBool with the default for anything it does not know.

    Source: amazon-vpc-cni-k8s/utils/utils.go:GetBoolAsStringEnvVar, v1.23.1.
    """
    return True if text in _TRUE else False if text in _FALSE else default


def load_additional_eni_tags(text: str) -> dict[str, str]:
    """A JSON object of strings, without keys that hold the reserved prefix; nothing if it is anything else.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:loadAdditionalENITags, v1.23.1.
    """
    try:
        tags = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(tags, dict) or not all(value is None or isinstance(value, str) for value in tags.values()):
        return {}
    return {key: value or "" for key, value in tags.items() if RESERVED_TAG_PREFIX not in key}


def _not_negative(env: Mapping[str, str], name: str, default: int) -> int:
    value = atoi(env.get(name, ""))
    return default if value is None or value < 0 else value


@dataclass(frozen=True, slots=True)
class Settings:
    """What one ipamd was started with. Targets of 0 mean "not set", except WARM_ENI_TARGET and WARM_PREFIX_TARGET."""

    env: Mapping[str, str]
    warm_eni_target: int
    warm_ip_target: int
    minimum_ip_target: int
    warm_prefix_target: int
    prefix_delegation: bool
    #: −1: the instance's limit
    max_eni: int
    cooldown_s: int
    custom_networking: bool
    subnet_discovery: bool
    pod_eni: bool
    manage_untagged: bool
    manage_on_cordoned: bool
    #: the loop grows and shrinks the pool
    provisioning: bool
    #: the start does, and ENIs are tagged and leaked ones swept
    provisioning_at_start: bool
    imds_only: bool
    leak_cleanup: bool
    cluster_name: str
    #: tags that every ENI gets besides the CNI's own
    additional_tags: Mapping[str, str]
    veth_prefix: str

    @property
    def ip_targets(self) -> bool:
        """WARM_IP_TARGET or MINIMUM_IP_TARGET is defined.

        Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:warmIPTargetsDefined, v1.23.1.
        """
        return self.warm_ip_target != 0 or self.minimum_ip_target != 0

    @staticmethod
    def from_env(env: Mapping[str, str], rules: CniRules) -> Settings:
        """Read the environment as the release does; a variable it does not know yet has no effect.

        Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:New, getWarmENITarget, getWarmIPTarget, getMinimumIPTarget,
        getWarmPrefixTarget, getMaxENI, v1.23.1.
        """

        def flag(name: str, default: bool) -> bool:
            return parse_bool(env.get(name, ""), default)

        max_eni = atoi(env.get("MAX_ENI", ""))
        cooldown = atoi(env.get("IP_COOLDOWN_PERIOD", "")) if rules.cooldown_setting else None
        imds_only = rules.imds_only_setting and flag("ENABLE_IMDS_ONLY_MODE", False)
        provisioning = not (imds_only or flag("DISABLE_NETWORK_RESOURCE_PROVISIONING", False))
        at_start = provisioning or not rules.provisioning_stops_all
        return Settings(
            env=env,
            warm_eni_target=_not_negative(env, "WARM_ENI_TARGET", 1),
            warm_ip_target=_not_negative(env, "WARM_IP_TARGET", 0),
            minimum_ip_target=_not_negative(env, "MINIMUM_IP_TARGET", 0),
            warm_prefix_target=_not_negative(env, "WARM_PREFIX_TARGET", 0),
            prefix_delegation=rules.prefix_delegation and flag("ENABLE_PREFIX_DELEGATION", False),
            max_eni=max_eni if max_eni is not None and max_eni >= 1 else -1,
            cooldown_s=DEFAULT_COOLDOWN_S if cooldown is None else cooldown,
            custom_networking=flag("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", False),
            subnet_discovery=rules.subnet_discovery and flag("ENABLE_SUBNET_DISCOVERY", True),
            pod_eni=flag("ENABLE_POD_ENI", False),
            manage_untagged=not rules.manage_untagged or flag("MANAGE_UNTAGGED_ENI", True),
            manage_on_cordoned=not rules.cordon_stops_growth
            or (rules.cordon_setting and flag("AWS_MANAGE_ENIS_NON_SCHEDULABLE", False)),
            provisioning=provisioning,
            provisioning_at_start=at_start,
            imds_only=imds_only,
            leak_cleanup=at_start
            and not (rules.leak_cleanup_setting and flag("DISABLE_LEAKED_ENI_CLEANUP", False)),
            cluster_name=env.get("CLUSTER_NAME", ""),
            additional_tags=load_additional_eni_tags(env.get("ADDITIONAL_ENI_TAGS", "")),
            veth_prefix=env.get("AWS_VPC_K8S_CNI_VETHPREFIX", "") or "eni",
        )


def refusal_to_start(env: Mapping[str, str], rules: CniRules) -> str:
    """Why the aws-vpc-cni container refuses to start ipamd with this environment; "" if it starts.

    Source: amazon-vpc-cni-k8s/cmd/aws-vpc-cni/main.go:validateEnvVars, v1.23.1.
    """
    prefix = env.get("AWS_VPC_K8S_CNI_VETHPREFIX", "eni")
    if len(prefix) > 4:
        return "AWS_VPC_K8S_CNI_VETHPREFIX cannot be longer than 4 characters"
    if prefix in ("eth", "lo", "vlan"):
        return "AWS_VPC_K8S_CNI_VETHPREFIX cannot be set to reserved values 'eth', 'vlan', or 'lo'"
    if rules.cooldown_setting and "IP_COOLDOWN_PERIOD" in env:
        cooldown = atoi(env["IP_COOLDOWN_PERIOD"])
        if cooldown is None or cooldown < 0:
            return f"IP_COOLDOWN_PERIOD MUST be a valid positive integer. {env['IP_COOLDOWN_PERIOD']} is invalid"
    if rules.prefix_delegation and parse_bool(env.get("ENABLE_PREFIX_DELEGATION", ""), False):
        targets = ("WARM_PREFIX_TARGET", "WARM_IP_TARGET", "MINIMUM_IP_TARGET")
        if all(env.get(name, "0") <= "0" for name in targets):  # text is compared, as there
            return "Setting WARM_PREFIX_TARGET = 0 is not supported while WARM_IP_TARGET/MINIMUM_IP_TARGET is not set"
    return ""
