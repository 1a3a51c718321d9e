"""Quantities and durations: parsed and printed exactly as Kubernetes does.

Quantities follow ``resource.Quantity`` (a value with a family that is kept for printing), durations Go's
``time.ParseDuration`` and kubectl's two ways to print an age. Called by everything that reads manifests or prints.
"""

from __future__ import annotations

import re
from typing import Final

_NANO: Final = 10**9
#: A quantity is capped at ±(2^63 − 1).
_MAX_NANO: Final = (2**63 - 1) * _NANO

DECIMAL: Final = "DecimalSI"
BINARY: Final = "BinarySI"
EXPONENT: Final = "DecimalExponent"

_QUANTITY = re.compile(r"^([+-]?)(\d*)(?:\.(\d*))?(?:(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?)|[eE]([+-]?\d+))$")
_DECIMAL_POWER = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL_POWER.items()}
_BINARY_POWER = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_BINARY_SUFFIX = {0: "", **{power: suffix for suffix, power in _BINARY_POWER.items()}}


def _ceil_away(value: int, unit: int) -> int:
    """``value / unit`` rounded away from zero."""
    return -(-value // unit) if value >= 0 else value // unit


class Quantity:
    """An amount in billionths, and the family (``DecimalSI``, ``BinarySI``, ``DecimalExponent``) it was written in."""

    __slots__ = ("family", "nano")

    def __init__(self, nano: int, family: str = DECIMAL) -> None:
        self.nano = nano
        self.family = family

    @property
    def value(self) -> int:
        """Whole units, rounded away from zero.

        Source: apimachinery/pkg/api/resource/quantity.go:Value, v1.34.1.
        """
        return _ceil_away(self.nano, _NANO)

    @property
    def milli_value(self) -> int:
        """Thousandths, rounded away from zero.

        Source: apimachinery/pkg/api/resource/quantity.go:MilliValue, v1.34.1.
        """
        return _ceil_away(self.nano, 10**6)

    def __add__(self, other: Quantity) -> Quantity:
        """The sum, in the family of the first operand that is not zero.

        Source: apimachinery/pkg/api/resource/quantity.go:Add, v1.34.1.
        """
        return Quantity(self.nano + other.nano, self.family if self.nano else other.family)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nano == other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __str__(self) -> str:
        """Canonical: no fraction, no loss, the largest suffix of the family.

        Source: apimachinery/pkg/api/resource/quantity.go:CanonicalizeBytes, v1.34.1.
        """
        nano = self.nano
        if nano == 0:
            return "0"
        if self.family == BINARY and abs(nano) >= 1024 * _NANO and nano % _NANO == 0:
            mantissa, power = nano // _NANO, 0
            while power < 6 and mantissa % 1024 == 0:
                mantissa //= 1024
                power += 1
            return f"{mantissa}{_BINARY_SUFFIX[power]}"
        mantissa, power = nano, -9
        while power < 18 and mantissa % 1000 == 0:
            mantissa //= 1000
            power += 3
        if self.family == EXPONENT:
            return f"{mantissa}e{power}" if power else str(mantissa)
        return f"{mantissa}{_DECIMAL_SUFFIX[power]}"


def parse_quantity(text: str | int | float) -> Quantity:
    """``100m``, ``1.5Gi``, ``1e3``, ``2`` → a quantity; finer than a billionth rounds away from zero.

    Raises ValueError. Source: apimachinery/pkg/api/resource/quantity.go:ParseQuantity, v1.34.1.
    """
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a quantity such as 100m, 1.5 or 512Mi")
    if isinstance(text, float):
        text = f"{text:.9f}".rstrip("0").rstrip(".")
    match = _QUANTITY.match(str(text))
    if match is None or not (match[2] or match[3]):
        raise ValueError(f"{text!r} is not a quantity such as 100m, 1.5 or 512Mi")
    sign, whole, fraction, suffix, exponent = match.groups()
    fraction = fraction or ""
    digits = int((whole + fraction) or "0")
    scale = len(fraction)
    if suffix in _BINARY_POWER:
        family, numerator, power = BINARY, 1024 ** _BINARY_POWER[suffix], 0
    elif exponent is not None:
        family, numerator, power = EXPONENT, 1, int(exponent)
    else:
        family, numerator, power = DECIMAL, 1, _DECIMAL_POWER[suffix]
    power += 9 - scale
    if abs(power) > 400:
        raise ValueError(f"{text!r} is out of the range of a quantity")
    nano = digits * numerator * 10**power if power >= 0 else _ceil_away(digits * numerator, 10**-power)
    nano = min(nano, _MAX_NANO)
    return Quantity(-nano if sign == "-" else nano, family)


def resource_amount(name: str, quantity: str | int | float) -> int:
    """A resource list's entry as the integer that the scheduler counts with: cpu in millicores, the rest in units.

    Source: kubernetes/pkg/scheduler/framework/types.go:Resource.Add, v1.34.1.
    """
    parsed = parse_quantity(quantity)
    return parsed.milli_value if name == "cpu" else parsed.value


def resource_amounts(resources: dict[str, str | int | float] | None) -> dict[str, int]:
    """A whole resource list (``requests``, ``allocatable``) by :func:`resource_amount`, in its order."""
    if not resources:
        return {}
    return {name: resource_amount(name, quantity) for name, quantity in resources.items()}


_DURATION_UNITS_NS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """``90s``, ``1h30m``, ``500ms``, ``-2m``, ``0`` → seconds.

    Raises ValueError. Source: Go's time.ParseDuration.
    """
    body = str(text)
    negative = body[:1] == "-"
    if body[:1] in ("-", "+"):
        body = body[1:]
    if body == "0":
        return 0.0
    position = total_ns = 0
    while position < len(body):
        match = _DURATION_PART.match(body, position)
        if match is None or not (match[1] or match[2]):
            break
        unit = _DURATION_UNITS_NS[match[3]]
        total_ns += int(match[1] or "0") * unit
        if match[2]:
            total_ns += int(match[2]) * unit // 10 ** len(match[2])
        position = match.end()
    if not body or position != len(body):
        raise ValueError(f"{text!r} is not a duration such as 90s, 5m or 1h30m")
    if total_ns > 2**63 - 1:
        raise ValueError(f"{text!r} is longer than a duration may be (about 292 years)")
    seconds = total_ns / 10**9
    return -seconds if negative else seconds


def human_duration(seconds: float) -> str:
    """An age as kubectl prints it: ``52s``, ``3m13s``, ``179m``, ``47h``, ``7d23h``.

    Source: apimachinery/pkg/util/duration/duration.go:HumanDuration, v1.34.1.
    """
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    m = s // 60
    if m < 10:
        return f"{m}m" if s % 60 == 0 else f"{m}m{s % 60}s"
    if m < 180:
        return f"{m}m"
    h = s // 3600
    if h < 8:
        return f"{h}h" if m % 60 == 0 else f"{h}h{m % 60}m"
    if h < 48:
        return f"{h}h"
    d = h // 24
    if h < 192:
        return f"{d}d" if h % 24 == 0 else f"{d}d{h % 24}h"
    if h < 24 * 365 * 2:
        return f"{d}d"
    y = d // 365
    if h < 24 * 365 * 8:
        return f"{y}y" if d % 365 == 0 else f"{y}y{d % 365}d"
    return f"{y}y"


def short_human_duration(seconds: float) -> str:
    """An age in one unit.

    Source: apimachinery/pkg/util/duration/duration.go:ShortHumanDuration, v1.34.1.
    """
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m"
    if s < 24 * 3600:
        return f"{s // 3600}h"
    if s < 24 * 3600 * 365:
        return f"{s // (24 * 3600)}d"
    return f"{s // (24 * 3600 * 365)}y"
