"""YAML with line numbers, and limits that make a hostile or mistaken file harmless.

A file is checked as a stream of events first (size, depth, number of nodes, aliases), then composed, then built into
plain Python values together with the line of every path. Leaves out tags beyond the YAML core and merge keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eksim.errors import InputError

MAX_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 60
MAX_NODES = 200_000

Path_ = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class YamlFile:
    """Parsed documents of one file, and the line (1-based) of each path in them: ``(document, key, index, …)``."""

    name: str
    documents: list[Any] = field(default_factory=list)
    lines: dict[Path_, int] = field(default_factory=dict)

    def line_of(self, path: Path_) -> int:
        """The line of a path, or of its nearest ancestor that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_yaml(path: Path | str) -> YamlFile:
    """Read a YAML file. Raises InputError naming file and line."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError("is a directory", str(path), expected="a YAML file")
        if size > MAX_BYTES:
            raise InputError(
                f"is {size / 1024 / 1024:.1f} MiB",
                str(path),
                expected=f"at most {MAX_BYTES // 1024 // 1024} MiB of YAML",
            )
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # a device says 0 bytes and never ends
        if len(content) > MAX_BYTES:
            raise InputError("goes on and on", str(path), expected=f"at most {MAX_BYTES // 1024 // 1024} MiB of YAML")
        text = content.decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path), expected="a readable YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", str(path), expected="YAML text") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlFile:
    """Parse YAML text; ``name`` is what errors call the file."""
    if len(text) > MAX_BYTES:
        raise InputError(f"is {len(text)} characters", name, expected=f"at most {MAX_BYTES} of YAML")
    try:
        _check_events(text, name)
        file = YamlFile(name)
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                builder = _Builder(file, loader)
                file.documents.append(builder.build(node, (len(file.documents),)))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise InputError(f"is not YAML: {problem}", name, mark.line + 1 if mark else 0, expected="valid YAML") from None
    return file


def _check_events(text: str, name: str) -> None:
    depth = aliases = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError("nests too deeply", name, _line(event), expected=f"at most {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        tag = getattr(event, "tag", None)
        if tag and (not tag.startswith("tag:yaml.org,2002:") or "python" in tag):
            raise InputError(f"is not YAML: tag {tag}", name, _line(event), expected="plain YAML without tags")
        if nodes > 3 * MAX_NODES or aliases > 1000:
            raise InputError("holds too much", name, _line(event), expected=f"at most {MAX_NODES} values")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder:
    """Values from composed nodes; aliases are expanded, with their cost counted."""

    def __init__(self, file: YamlFile, loader: Any) -> None:
        self.file = file
        self.loader = loader
        self.count = 0

    def build(self, node: yaml.Node, path: Path_) -> Any:
        self.count += 1
        line = node.start_mark.line + 1
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise InputError(
                "expands to too much (aliases of aliases?)",
                self.file.name,
                line,
                expected=f"at most {MAX_NODES} values",
            )
        self.file.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            out: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = self._scalar(key_node)
                key_line = key_node.start_mark.line + 1
                if not isinstance(key, str):
                    key = str(key)
                if key in out:
                    raise InputError("stands twice", self.file.name, key_line, dotted((*path[1:], key)), "it once")
                self.file.lines[(*path, key)] = key_line
                out[key] = self.build(value_node, (*path, key))
            return out
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise InputError("a list or mapping as a key", self.file.name, node.start_mark.line + 1, expected="a name")
        tag = node.tag
        if tag == "tag:yaml.org,2002:timestamp":
            return node.value
        if tag == "tag:yaml.org,2002:merge":
            raise InputError(
                "merge keys (<<) are not read", self.file.name, node.start_mark.line + 1, expected="the fields written out"
            )
        if tag.startswith("tag:yaml.org,2002:"):
            try:
                return self.loader.construct_object(node)
            except (ValueError, OverflowError) as error:
                raise InputError(
                    f"value {node.value[:40]!r} cannot be read: {error}", self.file.name, node.start_mark.line + 1
                ) from None
        raise InputError(f"tag {tag}", self.file.name, node.start_mark.line + 1, expected="plain YAML without tags")


def dotted(path: Path_) -> str:
    """``("steps", 2, "scale")`` → ``steps[2].scale``."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else part)
    return out
