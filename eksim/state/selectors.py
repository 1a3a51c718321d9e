"""Label selectors and node selectors: parsed once, matched often.

Mimics apimachinery's ``metav1.LabelSelectorAsSelector`` and component-helpers' ``nodeaffinity``. Objects are immutable
and hashable by content, so equal specs share what is worked out from them. Called by the scheduler, the controllers and
everything else that selects pods or nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INT64 = re.compile(r"^[+-]?\d+$")


def parse_int64(text: str) -> int | None:
    """``strconv.ParseInt(text, 10, 64)``: None if it is no 64-bit integer."""
    if not _INT64.match(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


class Requirement:
    """``key operator values``: In, NotIn, Exists, DoesNotExist, and for nodes Gt, Lt.

    Source: apimachinery/pkg/labels/selector.go:Requirement.Matches, v1.34.1.
    """

    __slots__ = ("bound", "key", "operator", "values")

    def __init__(self, key: str, operator: str, values: tuple[str, ...] = ()) -> None:
        self.key = key
        self.operator = operator
        self.values = values
        self.bound: int | None = parse_int64(values[0]) if operator in ("Gt", "Lt") and len(values) == 1 else None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` fulfil it."""
        operator = self.operator
        value = labels.get(self.key)
        if operator == "In":
            return value is not None and value in self.values
        if operator == "NotIn":
            return value is None or value not in self.values
        if operator == "Exists":
            return value is not None
        if operator == "DoesNotExist":
            return value is None
        if value is None or self.bound is None:
            return False
        number = parse_int64(value)
        if number is None:
            return False
        return number > self.bound if operator == "Gt" else number < self.bound

    def key_of(self) -> tuple[Any, ...]:
        """Its content, to compare and hash by."""
        return (self.key, self.operator, self.values)


class LabelSelector:
    """All requirements must hold. ``nothing``: a missing selector, which selects no object; empty selects every one.

    Source: apimachinery/pkg/apis/meta/v1/helpers.go:LabelSelectorAsSelector, v1.34.1.
    """

    __slots__ = ("content", "nothing", "requirements")

    def __init__(self, requirements: tuple[Requirement, ...] = (), *, nothing: bool = False) -> None:
        self.requirements = requirements
        self.nothing = nothing
        self.content: tuple[Any, ...] = (nothing, tuple(r.key_of() for r in requirements))

    @staticmethod
    def parse(manifest: Mapping[str, Any] | None) -> LabelSelector:
        """``{matchLabels: …, matchExpressions: …}`` or None. Raises ValueError."""
        if manifest is None:
            return NOTHING
        requirements = [
            Requirement(key, "In", (str(value),)) for key, value in sorted((manifest.get("matchLabels") or {}).items())
        ]
        for expression in manifest.get("matchExpressions") or ():
            requirements.append(_expression(expression, ("In", "NotIn", "Exists", "DoesNotExist")))
        return LabelSelector(tuple(requirements))

    @staticmethod
    def of_labels(labels: Mapping[str, str]) -> LabelSelector:
        """A map selector as Services and ReplicationControllers have it; empty selects everything."""
        return LabelSelector(tuple(Requirement(key, "In", (value,)) for key, value in sorted(labels.items())))

    def and_also(self, requirements: tuple[Requirement, ...]) -> LabelSelector:
        """With more requirements; what selects nothing still does."""
        return self if self.nothing else LabelSelector(self.requirements + requirements)

    @property
    def empty(self) -> bool:
        """Whether it holds no requirement (``selector.Empty()``: false for the selector of nothing)."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects an object with these labels."""
        if self.nothing:
            return False
        for requirement in self.requirements:  # noqa: SIM110 - half the cost of a generator
            if not requirement.matches(labels):
                return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSelector) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


NOTHING = LabelSelector(nothing=True)
EVERYTHING = LabelSelector()


class NodeSelectorTerm:
    """One term of a node selector: all expressions over labels and fields (``metadata.name``) must hold.

    Source: component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go:nodeSelectorTerm, v1.34.1.
    """

    __slots__ = ("expressions", "fields")

    def __init__(self, expressions: tuple[Requirement, ...], fields: tuple[Requirement, ...]) -> None:
        self.expressions = expressions
        self.fields = fields

    @staticmethod
    def parse(manifest: Mapping[str, Any]) -> NodeSelectorTerm:
        """``{matchExpressions: …, matchFields: …}``. Raises ValueError."""
        return NodeSelectorTerm(
            tuple(
                _expression(e, ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
                for e in manifest.get("matchExpressions") or ()
            ),
            tuple(_expression(e, ("In", "NotIn")) for e in manifest.get("matchFields") or ()),
        )

    @property
    def empty(self) -> bool:
        """Without any expression it matches no node (nil or empty term selects nothing)."""
        return not self.expressions and not self.fields

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether a node with these labels and this name fulfils it; an empty term is the caller's affair."""
        for requirement in self.expressions:
            if not requirement.matches(labels):
                return False
        if self.fields:
            fields = {"metadata.name": name}
            for requirement in self.fields:
                # A field is compared with exactly one value; with more the term is invalid and matches nothing.
                if len(requirement.values) != 1 or not requirement.matches(fields):
                    return False
        return True

    def key_of(self) -> tuple[Any, ...]:
        """Its content, to compare and hash by."""
        return (tuple(r.key_of() for r in self.expressions), tuple(r.key_of() for r in self.fields))


def node_selector_matches(terms: tuple[NodeSelectorTerm, ...], labels: Mapping[str, str], name: str) -> bool:
    """One of the terms must hold; no terms, or only empty ones, match no node.

    Source: component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go:LazyErrorNodeSelector.Match, v1.34.1.
    """
    for term in terms:  # noqa: SIM110 - half the cost of a generator
        if not term.empty and term.matches(labels, name):
            return True
    return False


def _expression(manifest: Mapping[str, Any], operators: tuple[str, ...]) -> Requirement:
    key, operator = manifest.get("key"), manifest.get("operator")
    values = tuple(str(v) for v in manifest.get("values") or ())
    if not isinstance(key, str) or not key:
        raise ValueError(f"a selector's expression has no key: {dict(manifest)!r}")
    if operator not in operators:
        raise ValueError(f"operator {operator!r} of {key!r} is none of {', '.join(operators)}")
    if operator in ("In", "NotIn") and not values:
        raise ValueError(f"operator {operator} of {key!r} needs values")
    if operator in ("Exists", "DoesNotExist") and values:
        raise ValueError(f"operator {operator} of {key!r} takes no values")
    if operator in ("Gt", "Lt") and (len(values) != 1 or parse_int64(values[0]) is None):
        raise ValueError(f"operator {operator} of {key!r} needs exactly one integer")
    return Requirement(key, str(operator), values)
