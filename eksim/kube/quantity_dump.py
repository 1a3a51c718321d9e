"""A resource quantity as go-spew writes it inside a pod template's dump.

Only what the pod-template-hash needs: the canonical text of a quantity, and the internal state that the real parser
leaves behind. Called by :mod:`eksim.kube.template`.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_QUANTITY = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+|[numkMGTPE]?)")

DECIMAL_SI = "DecimalSI"
DECIMAL_EXPONENT = "DecimalExponent"
BINARY_SI = "BinarySI"

#: Digits that the fast path of the real parser takes.
_MAX_INT64_FACTORS = 18


def _split(text: str) -> tuple[int, str, str, str, int]:
    """(sign, whole digits, digits after the point, format, exponent: of 10, or of 2 if binary)."""
    match = _QUANTITY.fullmatch(text)
    if not match or not (match[2] or match[3]):
        raise ValueError(f"{text!r} is not a quantity")
    suffix = match[4]
    if suffix in _BINARY:
        form, exponent = BINARY_SI, _BINARY[suffix]
    elif suffix in _DECIMAL:
        form, exponent = DECIMAL_SI, _DECIMAL[suffix]
    else:
        form, exponent = DECIMAL_EXPONENT, int(suffix[1:])
    return (-1 if match[1] == "-" else 1), match[2].lstrip("0") or "0", match[3] or "", form, exponent


def canonical(text: str) -> str:
    """The canonical text of a quantity: ``0.5`` → ``500m``, ``1000m`` → ``1``, ``1024Mi`` → ``1Gi``.

    Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/api/resource/quantity.go:CanonicalizeBytes, v1.34.1.
    """
    sign, whole, part, form, exponent = _split(text)
    base = Fraction(2 if form == BINARY_SI else 10) ** exponent
    value = sign * Fraction(Decimal(f"{whole}.{part or '0'}")) * base
    nanos = value * 10**9
    if nanos.denominator != 1:  # a value below a billionth is rounded up, away from zero
        value = Fraction(math.ceil(abs(nanos)) * (1 if value > 0 else -1), 10**9)
    if value == 0:
        return "0"
    if form == BINARY_SI and (abs(value) < 1024 or value.denominator != 1):
        form = DECIMAL_SI
    if form == BINARY_SI:
        number, power = int(value), 0
        while number % 1024 == 0 and power < 60:
            number //= 1024
            power += 10
        return f"{number}{ {v: k for k, v in _BINARY.items()}.get(power, '') }"
    power = 18
    while power > -9 and (value / Fraction(10) ** power).denominator != 1:
        power -= 3
    number = int(value / Fraction(10) ** power)
    if form == DECIMAL_EXPONENT:
        return f"{number}e{power}" if power else str(number)
    return f"{number}{_DECIMAL_SUFFIX[power]}"


def _dump(value: int, scale: int, dec: str, text: str, form: str) -> str:
    return (
        f"{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}} "
        f"d:(resource.infDecAmount){{Dec:(*inf.Dec){dec}}} s:(string){text} Format:(resource.Format){form}}}"
    )


@lru_cache(maxsize=4096)
def dump_quantity(text: str) -> str:
    """The quantity with canonical text ``canonical(text)`` as go-spew's ``%#v`` writes it.

    The parser keeps the text itself only where it knows it to be canonical: for a binary number not if it is a multiple
    of 8. Numbers too long for its fast path become a big decimal.
    Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/api/resource/quantity.go:ParseQuantity, v1.34.1.
    """
    text = canonical(text)
    if text == "0":
        return _dump(0, 0, "<nil>", "0", DECIMAL_SI)
    sign, whole, _, form, exponent = _split(text)
    number = int(whole)
    if form == BINARY_SI:
        precision = 15 - len(whole) - int(exponent * 3 / 10) - 1
        shown = text if number & 7 else ""
        value, scale = number << exponent, 0
    else:
        precision = _MAX_INT64_FACTORS - len(whole)
        shown, value, scale = text, number, exponent
    if precision >= 0:
        return _dump(sign * value, scale, "<nil>", shown, form)
    unscaled = value * 10 ** (9 + (0 if form == BINARY_SI else scale))
    words = []
    while unscaled:
        words.append(str(unscaled & 0xFFFFFFFFFFFFFFFF))
        unscaled >>= 64
    dec = (
        f"{{unscaled:(big.Int){{neg:(bool){'true' if sign < 0 else 'false'} abs:(big.nat)[{' '.join(words)}]}} "
        "scale:(inf.Scale)9}"
    )
    return _dump(0, 0, dec, "", form)
