"""What the API server does with a manifest: defaulting, admission of pods, create or update.

Mimics kubectl apply against kube-apiserver: admission plugins Priority, DefaultTolerationSeconds and PodTolerationRestriction's
defaults are the ones that concern scheduling. Called by ``play/steps.py`` and by the controllers that make pods.
"""

from __future__ import annotations

from typing import Any

from eksim.engine.shared import shared
from eksim.engine.streams import Stream
from eksim.errors import Refused
from eksim.kube.template import default_annotations, default_pod_template, default_template_of, default_workload
from eksim.names import uid
from eksim.state.objects import ApiObject, Json, Pod
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.versions import KubernetesRules

NOT_READY_SECONDS = 300
_DEFAULT_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_WORKLOADS = ("Deployment", "ReplicaSet", "DaemonSet")


class Admission:
    """Turns a pod's spec as written into the spec as stored; equal templates share one parsed spec."""

    def __init__(self, store: Store, rules: KubernetesRules) -> None:
        self.store = store
        self.rules = rules
        self._made: dict[int, tuple[Json, PodSpec]] = {}

    def pod_spec(self, manifest: Json) -> PodSpec:
        """The admitted, parsed spec of a defaulted pod spec. The same dict gives the same object."""
        found = self._made.get(id(manifest))
        if found is not None and found[0] is manifest:
            return found[1]
        classes = {c.name: c for c in self.store.list("PriorityClass")}
        spec = PodSpec.parse(admit(manifest, classes), self.rules) if classes else _without_classes(manifest, self.rules)
        self._made[id(manifest)] = (manifest, spec)
        return spec


#: a template as the API server stores it; one object for all clusters that are given the same manifest
_stored_template = shared(default_template_of)


@shared
def _without_classes(manifest: Json, rules: KubernetesRules) -> PodSpec:
    """What becomes of a pod's spec where nobody made a PriorityClass, which is the same in every cluster."""
    return PodSpec.parse(admit(manifest, {}), rules)


def admit(manifest: Json, classes: dict[str, ApiObject]) -> Json:
    """Priority and default tolerations. ``classes``: the PriorityClasses by name.

    Source: kubernetes/plugin/pkg/admission/priority/admission.go, defaulttolerationseconds/admission.go, v1.34.1.
    """
    out = dict(manifest)
    name = out.get("priorityClassName")
    if "priority" not in out:
        chosen = classes.get(str(name)) if name else None
        if chosen is None and not name:
            chosen = next((c for c in classes.values() if c.extra.get("globalDefault")), None)
        if chosen is not None:
            out["priority"] = int(chosen.extra.get("value", 0))
            out["priorityClassName"] = chosen.name
            if chosen.extra.get("preemptionPolicy"):
                out.setdefault("preemptionPolicy", chosen.extra["preemptionPolicy"])
    tolerations = list(out.get("tolerations") or ())
    for key in _DEFAULT_TOLERATED:
        tolerated = any(
            t.get("key", "") in (key, "") and t.get("effect", "") in ("NoExecute", "") for t in tolerations
        )
        if not tolerated:
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NOT_READY_SECONDS}
            )
    out["tolerations"] = tolerations
    return out


class Applier:
    """``kubectl apply``, ``scale`` and ``delete`` against the store."""

    def __init__(self, store: Store, rules: KubernetesRules, admission: Admission, names: Stream) -> None:
        self.store = store
        self.rules = rules
        self.admission = admission
        self.names = names

    def apply(self, document: Json) -> Pod | ApiObject | Refused:
        """Create or update the object of a (checked) manifest."""
        kind = document["kind"]
        metadata = document["metadata"]
        if kind == "Pod":
            return self._apply_pod(document)
        namespace = metadata.get("namespace", "default")
        labels = {k: str(v) for k, v in (metadata.get("labels") or {}).items()}
        annotations = {k: str(v) for k, v in (metadata.get("annotations") or {}).items()}
        spec: Json = document.get("spec") or {}
        if kind in _WORKLOADS:
            spec = default_workload(kind, spec, self.rules, _stored_template(spec.get("template") or {}, self.rules))
        if kind in ("PriorityClass", "Namespace"):
            namespace = ""
        extra = {k: v for k, v in document.items() if k not in ("apiVersion", "kind", "metadata", "spec", "status")}
        found = self.store.get(kind, f"{namespace}/{metadata['name']}")
        if found is not None:
            changed = found.spec != spec
            fields: dict[str, Any] = {"spec": spec, "labels": labels, "extra": extra}
            template_changed = found.spec.get("template") != spec.get("template")
            merged = {**found.annotations, **annotations}
            merged = default_annotations(kind, merged, former=found.annotations, template_changed=template_changed)
            if merged != found.annotations:
                fields["annotations"] = merged
            refused = self.store.update_object(found, bump_generation=changed, **fields)
            return refused or found
        obj = ApiObject(
            kind,
            namespace,
            metadata["name"],
            spec,
            api_version=document["apiVersion"],
            labels=labels,
            annotations=default_annotations(kind, annotations),
            uid=uid(self.names),
            extra=extra,
        )
        return self.store.create_object(obj)

    def _apply_pod(self, document: Json) -> Pod | Refused:
        metadata = document["metadata"]
        namespace = metadata.get("namespace", "default")
        template = default_pod_template({"metadata": {}, "spec": document["spec"]})
        pod = Pod(
            namespace,
            metadata["name"],
            self.admission.pod_spec(template["spec"]),
            {k: str(v) for k, v in (metadata.get("labels") or {}).items()},
            uid=uid(self.names),
            annotations={k: str(v) for k, v in (metadata.get("annotations") or {}).items()},
        )
        pod.node = pod.spec.node_name
        return self.store.create_pod(pod)

    def scale(self, kind: str, namespace: str, name: str, replicas: int) -> Refused | None:
        """``kubectl scale``: spec.replicas."""
        obj = self.store.get(kind, f"{namespace}/{name}")
        if obj is None:
            return Refused("NotFound", f'{kind.lower()}s.apps "{name}" not found')
        if obj.spec.get("replicas") == replicas:
            return None
        return self.store.update_object(obj, spec={**obj.spec, "replicas": replicas}, bump_generation=True)

    def delete(self, kind: str, namespace: str, name: str) -> Refused | None:
        """``kubectl delete``: a pod begins its grace; another object is gone, and what it owned follows."""
        if kind == "Pod":
            pod = self.store.pods.get(f"{namespace}/{name}")
            if pod is None:
                return Refused("NotFound", f'pods "{name}" not found')
            self.store.begin_pod_deletion(pod)
            return None
        obj = self.store.get(kind, f"{namespace}/{name}")
        if obj is None:
            return Refused("NotFound", f'{kind.lower()}s "{name}" not found')
        return self.store.delete_object(obj)
