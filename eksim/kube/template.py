"""Pod templates as the API server stores them, and the text that a pod-template-hash is computed over.

Three things: the API's defaulting of Deployments, ReplicaSets and DaemonSets with their templates; the dump of a
template as the release's Go types print it; and the hash, computed once per template and release in a process. Not
modelled: validation, and the defaults that only pods get (requests from limits, tolerations, service account).
Called by whoever applies a manifest, and by the Deployment and DaemonSet controllers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from eksim.kube.quantity_dump import dump_quantity
from eksim.names import fnv1a_32, hash_from_sum
from eksim.state.podtypes import field_table
from eksim.versions import KubernetesRules

Json = dict[str, Any]

OLDEST_MINOR = 17
NEWEST_MINOR = 36

# -- defaulting -------------------------------------------------------------------------------------------------------


def _pull_policy(image: str) -> str:
    """``Always`` for tag latest or none, else ``IfNotPresent``; a digest counts as a tag that is not latest.

    Source: kubernetes/pkg/apis/core/v1/defaults.go:SetDefaults_Container, v1.34.1.
    """
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if tag == "latest" or not (tag or digest) else "IfNotPresent"


def _default(obj: Json, **values: Any) -> None:
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = value


def _default_empty(obj: Json, **values: Any) -> None:
    """Like :func:`_default` for plain strings and numbers, where the zero counts as absent."""
    for key, value in values.items():
        if not obj.get(key):
            obj[key] = value


def _default_http_get(handler: Json | None) -> None:
    if handler and handler.get("httpGet") is not None:
        _default_empty(handler["httpGet"], path="/", scheme="HTTP")


def _default_field_refs(items: list[Json] | None) -> None:
    for item in items or ():
        if item.get("fieldRef") is not None:
            _default_empty(item["fieldRef"], apiVersion="v1")


def _default_container(container: Json, host_ports: bool) -> None:
    _default_empty(
        container,
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy=_pull_policy(container.get("image") or ""),
    )
    for port in container.get("ports") or ():
        _default_empty(port, protocol="TCP")
        if host_ports:
            _default_empty(port, hostPort=port.get("containerPort", 0))
    for variable in container.get("env") or ():
        if variable.get("valueFrom"):
            _default_field_refs([variable["valueFrom"]])
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(kind)
        if probe is not None:
            _default_empty(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            _default_http_get(probe)
            if probe.get("grpc") is not None:
                _default(probe["grpc"], service="")
    for kind in ("postStart", "preStop"):
        _default_http_get((container.get("lifecycle") or {}).get(kind))


_VOLUME_DEFAULTS: dict[str, Json] = {
    "secret": {"defaultMode": 420},
    "configMap": {"defaultMode": 420},
    "downwardAPI": {"defaultMode": 420},
    "projected": {"defaultMode": 420},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def _default_volume(volume: Json) -> None:
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    if not sources:
        volume["emptyDir"] = {}
        return
    for source in sources:
        _default(volume[source], **_VOLUME_DEFAULTS.get(source, {}))
    if volume.get("downwardAPI"):
        _default_field_refs(volume["downwardAPI"].get("items"))
    for projection in (volume.get("projected") or {}).get("sources") or ():
        if projection.get("serviceAccountToken") is not None:
            _default(projection["serviceAccountToken"], expirationSeconds=3600)
        if projection.get("downwardAPI"):
            _default_field_refs(projection["downwardAPI"].get("items"))
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim is not None:
        _default(claim.setdefault("spec", {}), volumeMode="Filesystem")
    if volume.get("image") is not None:
        _default_empty(volume["image"], pullPolicy=_pull_policy(volume["image"].get("reference") or ""))


def _copy(value: Any) -> Any:
    """A deep copy of JSON data without its nulls."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def default_pod_template(template: Json, *, host_ports_in_templates: bool = False) -> Json:
    """A copy of a pod template with the API's defaults filled in.

    ``host_ports_in_templates``: releases up to 1.27 set hostPort = containerPort in templates under hostNetwork.
    Source: kubernetes/pkg/apis/core/v1/defaults.go, v1.34.1.
    """
    template = _copy(template)
    spec: Json = template.setdefault("spec", {})
    _default_empty(
        spec, dnsPolicy="ClusterFirst", restartPolicy="Always", schedulerName="default-scheduler"
    )
    _default(spec, securityContext={}, terminationGracePeriodSeconds=30)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    host_ports = host_ports_in_templates and bool(spec.get("hostNetwork"))
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        _default_container(container, host_ports)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    return dict(template)


def default_template_of(template: Json, rules: KubernetesRules) -> Json:
    """:func:`default_pod_template` for a workload's template, as the release does it."""
    return default_pod_template(template, host_ports_in_templates=rules.controllers.host_ports_in_templates)


def default_workload(kind: str, spec: Json, rules: KubernetesRules, template: Json | None = None) -> Json:
    """A copy of a Deployment's, ReplicaSet's or DaemonSet's spec as the API server of that release stores it.

    ``template``: the template with its defaults, if somebody has that already.

    Source: kubernetes/pkg/apis/apps/v1/defaults.go, v1.34.1.
    """
    if template is None:
        template = default_template_of(spec.get("template") or {}, rules)
    spec = _copy({key: value for key, value in spec.items() if key != "template"})
    spec["template"] = template
    if kind == "Deployment":
        _default(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
        strategy = spec.setdefault("strategy", {})
        _default_empty(strategy, type="RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            _default(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    elif kind == "ReplicaSet":
        _default(spec, replicas=1)
    elif kind == "DaemonSet":
        _default(spec, revisionHistoryLimit=10)
        strategy = spec.setdefault("updateStrategy", {})
        _default_empty(strategy, type="RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            _default(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)
    return dict(spec)


#: Counts a DaemonSet's templates.
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def default_annotations(
    kind: str, annotations: dict[str, str], *, former: dict[str, str] | None = None, template_changed: bool = False
) -> dict[str, str]:
    """The annotations of a workload as the API server stores them: a DaemonSet counts its templates in one.

    ``former``: the stored annotations in an update.
    Source: kubernetes/pkg/apis/apps/v1/conversion.go:Convert_apps_DaemonSet_To_v1_DaemonSet, v1.34.1.
    """
    if kind != "DaemonSet":
        return annotations
    generation = int((former or {}).get(TEMPLATE_GENERATION, "0"))
    if generation == 0 or template_changed:
        generation += 1
    return {**annotations, TEMPLATE_GENERATION: str(generation)}


# -- the dump ---------------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    label: str  # ``Name:(string)``
    zero: str  # what an absent one prints
    json: str  # "" for an embedded struct
    dump: Callable[[Any, list[str]], str]


class GoTypes:
    """The pod template's Go types in one release: how each value prints.

    Use :func:`go_types`, which keeps one for each release.
    """

    def __init__(self, minor: int) -> None:
        self._rows, self._underlying = field_table()
        self._minor = min(max(minor, OLDEST_MINOR), NEWEST_MINOR)
        self._structs: dict[str, tuple[_Field, ...]] = {}
        self._zeros: dict[str, str] = {}

    def dump(self, template: Json, warnings: list[str]) -> str:
        """The text that is hashed. Fields that this release lacks go to ``warnings``."""
        return "(v1.PodTemplateSpec)" + self._dump_struct("v1.PodTemplateSpec", template, warnings)

    def knows(self, struct: str, json_name: str) -> bool:
        """Whether any release has the field."""
        return any(row[2] == json_name for row in self._rows.get(struct, ()))

    def _fields(self, struct: str) -> tuple[_Field, ...]:
        fields = self._structs.get(struct)
        if fields is None:
            fields = self._structs[struct] = tuple(
                _Field(f"{name}:({go_type})", self._zero(go_type), json_name, self._dumper(go_type))
                for name, go_type, json_name, since, until in self._rows[struct]
                if since <= self._minor <= until
            )
        return fields

    def _zero(self, go_type: str) -> str:
        zero = self._zeros.get(go_type)
        if zero is None:
            zero = self._zeros[go_type] = self._make_zero(self._underlying.get(go_type, go_type))
        return zero

    def _make_zero(self, go_type: str) -> str:
        if go_type.startswith(("*", "[]", "map[")):
            return "<nil>"
        if go_type == "string":
            return ""
        if go_type == "bool":
            return "false"
        if go_type in ("int32", "int64"):
            return "0"
        if go_type == "v1.Time":
            return "{Time:(time.Time){wall:(uint64)0 ext:(int64)0 loc:(*time.Location)<nil>}}"
        if go_type == "intstr.IntOrString":
            return "{Type:(intstr.Type)0 IntVal:(int32)0 StrVal:(string)}"
        if go_type == "resource.Quantity":
            # written out as 0 even if absent, and read back so
            return dump_quantity("0")
        return "{" + " ".join(f.label + f.zero for f in self._fields(go_type)) + "}"

    def _dumper(self, go_type: str) -> Callable[[Any, list[str]], str]:
        go_type = self._underlying.get(go_type, go_type)
        if go_type.startswith("*"):
            # a pointer shows its own type only, then the value
            return self._dumper(go_type[1:])
        if go_type.startswith("[]"):
            element = self._dumper(go_type[2:])
            return lambda value, warnings: "[" + " ".join([element(v, warnings) for v in value]) + "]"
        if go_type.startswith("map["):
            value_of = self._dumper(go_type[go_type.index("]") + 1 :])
            return lambda value, warnings: (
                "map[" + " ".join([f"{k}:{value_of(value[k], warnings)}" for k in sorted(value)]) + "]"
            )
        if go_type == "bool":
            return lambda value, warnings: "true" if value else "false"
        if go_type in ("string", "int32", "int64"):
            return lambda value, warnings: str(value)
        if go_type == "resource.Quantity":
            return lambda value, warnings: dump_quantity(str(value))
        if go_type == "intstr.IntOrString":
            return _dump_int_or_string
        if go_type == "v1.Time":
            zero = self._zero("v1.Time")
            return lambda value, warnings: zero
        return lambda value, warnings: self._dump_struct(go_type, value, warnings)

    def _dump_struct(self, struct: str, value: Json, warnings: list[str]) -> str:
        out = []
        left = len(value)
        fields = self._fields(struct)
        for label, zero, json_name, dump in fields:
            if not json_name:
                out.append(label + dump(value, warnings))
                continue
            item = value.get(json_name)
            if item is None:
                out.append(label + zero)
            else:
                left -= 1
                out.append(label + dump(item, warnings))
        if left:
            self._warn(struct, fields, value, warnings)
        return "{" + " ".join(out) + "}"

    def _warn(self, struct: str, fields: tuple[_Field, ...], value: Json, warnings: list[str]) -> None:
        """Note the fields of ``value`` that this release's type has not: the API server drops them."""
        names = [f.json for f in fields]
        if "" in names or struct in _EMBEDDED:
            # an embedded struct and its holder share one JSON object; what both together lack is left unsaid
            return
        for key, item in value.items():
            if item is not None and key not in names:
                warnings.append(f"{struct}.{key}")


def _dump_int_or_string(value: Any, warnings: list[str]) -> str:
    if isinstance(value, str):
        return f"{{Type:(intstr.Type)1 IntVal:(int32)0 StrVal:(string){value}}}"
    return f"{{Type:(intstr.Type)0 IntVal:(int32){value} StrVal:(string)}}"


_EMBEDDED = (
    "v1.ProbeHandler",
    "v1.Handler",
    "v1.VolumeSource",
    "v1.EphemeralContainerCommon",
    "v1.LocalObjectReference",
)


@lru_cache(maxsize=32)
def go_types(minor: int) -> GoTypes:
    """The types of release 1.``minor``; outside the table the nearest release's."""
    return GoTypes(minor)


class TemplateSum(NamedTuple):
    """The FNV-1a sum of a template's dump, from which hashes with any collisionCount follow, and what to warn of."""

    state: int
    warnings: tuple[str, ...]

    def hash(self, collision_count: int | None = None) -> str:
        """The pod-template-hash, or a DaemonSet's controller-revision-hash."""
        return hash_from_sum(self.state, collision_count)


@lru_cache(maxsize=4096)
def _sum_of(text: str, minor: int) -> TemplateSum:
    template = json.loads(text)
    fields: list[str] = []
    types = go_types(minor)
    dump = types.dump(template, fields)
    warnings = []
    if minor > NEWEST_MINOR:
        warnings.append(f"Kubernetes 1.{minor} is newer than the table of fields; hashed as 1.{NEWEST_MINOR}")
    unknown = [f for f in fields if not types.knows(*f.rsplit(".", 1))]
    if unknown:
        # a field newer than the table: the closest to the truth is the newest release that the table knows
        dump = go_types(NEWEST_MINOR).dump(template, [])
        warnings.append(f"unknown field {', '.join(unknown)}; hashed as Kubernetes 1.{NEWEST_MINOR}")
    elif fields:
        warnings.append(f"field {', '.join(fields)} is not of Kubernetes 1.{minor} and was dropped")
    return TemplateSum(fnv1a_32(dump.encode()), tuple(warnings))


def sum_template(template: Json, minor: int) -> TemplateSum:
    """The sum of a defaulted pod template in release 1.``minor``; remembered for the life of the process.

    Source: kubernetes/pkg/controller/controller_utils.go:ComputeHash, pkg/util/hash:DeepHashObject, v1.34.1.
    """
    return _sum_of(json.dumps(template, sort_keys=True, separators=(",", ":")), minor)


def dump_template(template: Json, minor: int) -> str:
    """The text that is hashed, for looking at."""
    return go_types(minor).dump(template, [])


def template_hash(template: Json, minor: int, collision_count: int | None = None) -> str:
    """The pod-template-hash of a defaulted template: ``7fb7fd49b4`` for the lab's Deployment in 1.21."""
    return sum_template(template, minor).hash(collision_count)
