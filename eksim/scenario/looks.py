"""The commands a scenario's reader may type in a ``look``: parsed here, answered by ``views/kubectl.py`` and ``node.py``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

#: kind as typed → kind as stored
KINDS = {
    "pod": "Pod",
    "pods": "Pod",
    "po": "Pod",
    "node": "Node",
    "nodes": "Node",
    "no": "Node",
    "deployment": "Deployment",
    "deployments": "Deployment",
    "deploy": "Deployment",
    "replicaset": "ReplicaSet",
    "replicasets": "ReplicaSet",
    "rs": "ReplicaSet",
    "daemonset": "DaemonSet",
    "daemonsets": "DaemonSet",
    "ds": "DaemonSet",
    "events": "Event",
    "event": "Event",
    "ev": "Event",
}
FORMS = "get KIND [NAME] [-A] [-n NAMESPACE] [-o wide], describe pod NAME [-n NAMESPACE], or ip link [NODE]"


@dataclass(slots=True)
class Look:
    """A parsed command. ``name`` may be a glob; for ``describe`` a Pending match is preferred. ``grep`` filters lines."""

    verb: str
    kind: str = ""
    name: str = ""
    namespace: str = "default"
    all_namespaces: bool = False
    wide: bool = False
    grep: list[str] = field(default_factory=list)
    after: int = 0


def parse_look(command: str) -> Look:
    """Parse a reader's command, pipes into grep included. Raises ValueError saying what is understood."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word == "|":
                parts.append([])
            else:
                parts[-1].append(word)
    except ValueError as error:
        raise ValueError(f"{command!r} cannot be read: {error}") from None
    words = [w for w in parts[0] if w != "kubectl"]
    if not words:
        raise ValueError(f"an empty command; eksim understands {FORMS}")
    look = _parse_ip(words) if words[0] == "ip" else _parse_kubectl(words)
    for pipe in parts[1:]:
        _parse_grep(pipe, look)
    return look


def _parse_ip(words: list[str]) -> Look:
    if words[1:2] != ["link"] or len(words) > 3:
        raise ValueError(f"{' '.join(words)!r} is not understood; eksim understands {FORMS}")
    return Look("ip link", name=words[2] if len(words) == 3 else "")


def _parse_kubectl(words: list[str]) -> Look:
    verb, rest = words[0], words[1:]
    if verb not in ("get", "describe") or not rest:
        raise ValueError(f"{' '.join(words)!r} is not understood; eksim understands {FORMS}")
    look = Look(verb)
    names: list[str] = []
    i = 0
    while i < len(rest):
        word = rest[i]
        if word in ("-A", "--all-namespaces"):
            look.all_namespaces = True
        elif word in ("-n", "--namespace", "-o", "--output") and i + 1 < len(rest):
            i += 1
            if word in ("-n", "--namespace"):
                look.namespace = rest[i]
            elif rest[i] == "wide":
                look.wide = True
            else:
                raise ValueError(f"output {rest[i]!r} is not understood; eksim understands -o wide")
        elif word.startswith("-"):
            raise ValueError(f"option {word!r} is not understood; eksim understands {FORMS}")
        else:
            names.append(word)
        i += 1
    if not names:
        raise ValueError(f"what to {verb} is missing; eksim understands {FORMS}")
    kind, _, name = names[0].partition("/")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not understood; eksim knows {', '.join(sorted(set(KINDS)))}")
    look.kind = KINDS[kind]
    if len(names) > (1 if name else 2):
        raise ValueError(f"{' '.join(words)!r} has several names; eksim understands one, which may be a glob")
    look.name = name or (names[1] if len(names) > 1 else "")
    if verb == "describe" and look.kind not in ("Pod", "Node"):
        raise ValueError(f"describe {kind} is not understood; eksim describes pods and nodes")
    return look


def _parse_grep(words: list[str], look: Look) -> None:
    if not words or words[0] not in ("grep", "egrep"):
        raise ValueError(f"a pipe into {' '.join(words)!r} is not understood; eksim understands grep")
    texts: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if word.startswith("-A"):
            number = word[2:] or next(rest, "")
            if not (number.isascii() and number.isdigit() and len(number) < 7):
                raise ValueError(f"grep -A {number} is not understood; eksim understands grep TEXT [-A5]")
            look.after = int(number)
        elif word.startswith("-"):
            raise ValueError(f"grep {word} is not understood; eksim understands grep TEXT [-A5]")
        else:
            texts.append(word)
    if len(texts) != 1:
        raise ValueError(f"{' '.join(words)!r} has {len(texts)} texts to look for; eksim understands grep TEXT [-A5]")
    look.grep += texts
