"""Conditions over named values: ``pods_pending == 0``, ``vcpu<=8 and arch=arm64``; parsed, never evaluated as code.

Grammar: ``or`` of ``and`` of ``not`` of comparisons ``name op value``, parentheses; operators ``== = != < <= > >= ~`` (``~``:
glob); values are numbers, ``'text'`` or bare words. Used by the search's ``--until`` and the sweep's filters of instance types.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

Condition = Callable[[Mapping[str, Any]], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<op><=|>=|==|!=|[<>=~()])|(?P<text>'[^']*'|\"[^\"]*\")|(?P<word>[A-Za-z_][\w.*?\[\]-]*)"
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


class ParsedCondition:
    """A condition: call it with a mapping of names to values. ``names``: those it reads; ``text``: as it was written."""

    def __init__(
        self, text: str, test: Condition, names: tuple[str, ...], comparisons: tuple[tuple[str, str, Any], ...]
    ) -> None:
        self.text = text
        self.names = names
        #: (name, operator, value) of each comparison, in order
        self.comparisons = comparisons
        self._test = test

    def __call__(self, values: Mapping[str, Any]) -> bool:
        return self._test(values)

    def __repr__(self) -> str:
        return f"<condition {self.text}>"


def parse_condition(text: str, known: Collection[str] | Mapping[str, str]) -> ParsedCondition:
    """Parse a condition over the ``known`` names, or name → kind (``i``, ``f`` number, ``s`` text, ``b`` truth value; empty:
    any). Raises ValueError saying where and what was expected."""
    return _Parser(text, known).parse()


class _Parser:
    def __init__(self, text: str, known: Collection[str] | Mapping[str, str]) -> None:
        self.text = text
        self.known = known if isinstance(known, Mapping) else dict.fromkeys(known, "")
        self.tokens: list[tuple[str, str, int]] = []
        self.at = 0
        self.names: dict[str, None] = {}
        self.comparisons: list[tuple[str, str, Any]] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None or match.end() == position:
                raise ValueError(f"{text!r}: {text[position:].strip()[:20]!r} is not understood")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()
        self.tokens.append(("end", "", len(text)))

    def parse(self) -> ParsedCondition:
        test = self._or(0)
        if self.tokens[self.at][0] != "end":
            raise self._expected("and, or, or the end")
        return ParsedCondition(self.text, test, tuple(self.names), tuple(self.comparisons))

    def _expected(self, what: str) -> ValueError:
        _, found, position = self.tokens[self.at]
        return ValueError(f"{self.text!r}: expected {what} at position {position + 1}, found {found or 'the end'!r}")

    def _word(self, word: str) -> bool:
        kind, found, _ = self.tokens[self.at]
        if kind == "word" and found.lower() == word:
            self.at += 1
            return True
        return False

    def _or(self, depth: int) -> Condition:
        if depth > 50:
            raise ValueError(f"{self.text[:40]!r}…: nests too deeply")
        parts = [self._and(depth)]
        while self._word("or"):
            parts.append(self._and(depth))
        return parts[0] if len(parts) == 1 else lambda values: any(p(values) for p in parts)

    def _and(self, depth: int) -> Condition:
        parts = [self._not(depth)]
        while self._word("and"):
            parts.append(self._not(depth))
        return parts[0] if len(parts) == 1 else lambda values: all(p(values) for p in parts)

    def _not(self, depth: int) -> Condition:
        if depth > 50:
            raise ValueError(f"{self.text[:40]!r}…: nests too deeply")
        if self._word("not"):
            inner = self._not(depth + 1)
            return lambda values: not inner(values)
        kind, found, _ = self.tokens[self.at]
        if kind == "op" and found == "(":
            self.at += 1
            inner = self._or(depth + 1)
            if self.tokens[self.at][1] != ")":
                raise self._expected("')'")
            self.at += 1
            return inner
        return self._comparison()

    def _check_kind(self, name: str, operator: str, value: Any, raw: str) -> None:
        kind = self.known[name]
        if operator == "~" or not kind:
            return
        what, fits = {
            "s": ("text", isinstance(value, str)),
            "b": ("true or false", isinstance(value, bool)),
        }.get(kind, ("a number", isinstance(value, float)))
        if not fits:
            raise ValueError(f"{self.text!r}: {name} is {what}, which does not compare with {raw}")

    def _comparison(self) -> Condition:
        kind, name, _ = self.tokens[self.at]
        if kind != "word":
            raise self._expected("a name")
        if name not in self.known:
            near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{self.text!r}: unknown name {name!r}; expected one of {', '.join(self.known)}{hint}")
        self.at += 1
        kind, operator, _ = self.tokens[self.at]
        if kind != "op" or operator in "()":
            raise self._expected("a comparison (==, !=, <, <=, >, >=, ~)")
        self.at += 1
        kind, raw, _ = self.tokens[self.at]
        value: Any
        if kind == "number":
            value = float(raw)
        elif kind == "text":
            value = raw[1:-1]
        elif kind == "word":
            value = {"true": True, "false": False}.get(raw.lower(), raw)
        else:
            raise self._expected("a value")
        self._check_kind(name, operator, value, raw)
        self.at += 1
        self.names[name] = None
        self.comparisons.append((name, operator, value))
        if operator == "~":
            return lambda values: fnmatch.fnmatchcase(str(values.get(name) or ""), str(value))
        compare = _COMPARE[operator]

        def test(values: Mapping[str, Any]) -> bool:
            actual = values.get(name)
            if actual is None:
                return False  # unknown: no comparison holds
            try:
                return compare(actual, value)
            except TypeError:
                raise ValueError(
                    f"{self.text!r}: {name} is {actual!r}, which does not compare with {value!r}"
                ) from None

        return test
