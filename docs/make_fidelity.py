"""``make fidelity``: the tables of ``docs/fidelity.md``, from the sources that the docstrings name; ``--check`` only compares.

A row is a rule: its first sentence, the object in the code that follows it, a test that would notice its absence, and where the
real component says so. Where a test names the object, that test stands there; else the replay of recordings that runs it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "fidelity.md"
BEGIN, END = "<!-- rules: made by docs/make_fidelity.py -->", "<!-- end of rules -->"

#: (title, module prefixes, the test that runs all of it)
PARTS = (
    ("The VPC CNI: datastore, pool, ipamd, plugin", ("eksim.cni",), "tests/fidelity/test_replay_cni.py::{cni}"),
    ("EC2 as ipamd meets it", ("eksim.aws", "eksim.state.network"), "tests/fidelity/test_replay_cni.py::{cni}"),
    (
        "kube-scheduler: queue, cycle, filters, scores, preemption",
        ("eksim.kube.scheduler", "eksim.state.podspec", "eksim.state.affinity", "eksim.state.selectors"),
        "tests/fidelity/test_replay_scheduler.py::test_every_case_of_a_family_replays",
    ),
    (
        "Controllers, names, templates",
        ("eksim.kube.controllers", "eksim.kube.template", "eksim.kube.quantity_dump", "eksim.names"),
        "tests/fidelity/test_replay_controllers.py::test_every_recorded_case_replays_without_a_difference",
    ),
    (
        "Event recorders",
        ("eksim.kube.events", "eksim.kube.event_correlator", "eksim.kube.event_series", "eksim.kube.event_objects"),
        "tests/fidelity/test_replay_events.py::test_every_recorded_case_replays_without_a_difference",
    ),
    (
        "Kubelet, nodes, admission, catalogue",
        (
            "eksim.kube.kubelet",
            "eksim.kube.node_agent",
            "eksim.kube.prober",
            "eksim.kube.capacity",
            "eksim.kube.apply",
            "eksim.catalog",
            "eksim.state.store",
            "eksim.units",
        ),
        "tests/fidelity/test_lab.py::test_the_lab_shows_what_its_reader_saw",
    ),
    (
        "What a reader sees",
        ("eksim.views",),
        "tests/fidelity/test_lab.py::test_the_lab_shows_what_its_reader_saw",
    ),
)
_SOURCE = re.compile(r"Sources?: (.+)", re.DOTALL)


def rules_of(path: Path) -> list[tuple[str, str, str]]:
    """(qualified name, rule, source) of every object of a module whose docstring names a source."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found: list[tuple[str, str, str]] = []

    def walk(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{inside}.{child.name}" if inside else child.name
                text = ast.get_docstring(child) or ""
                match = _SOURCE.search(text)
                if match:
                    rule = " ".join(text[: match.start()].split()) or child.name.strip("_").replace("_", " ")
                    source = " ".join(match[1].split("\n\n")[0].split())
                    found.append((f"{module}:{name}", rule, source))
                if isinstance(child, ast.ClassDef):
                    walk(child, name)

    walk(ast.parse(path.read_text()), "")
    return found


def tests_by_name() -> dict[str, list[tuple[str, str]]]:
    """Name of an object → tests that mention it, each with the source of its file."""
    out: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                names = {
                    n.id if isinstance(n, ast.Name) else n.attr
                    for n in ast.walk(node)
                    if isinstance(n, ast.Name | ast.Attribute)
                }
                for name in sorted(names):
                    out.setdefault(name, []).append((f"{path.relative_to(ROOT).as_posix()}::{node.name}", text))
    return out


def test_of(module: str, short: str, named: dict[str, list[tuple[str, str]]]) -> str | None:
    """The first test that mentions the object in a file that imports its module."""
    if short in COMMON or short.startswith("__"):
        return None
    parent, _, last = module.rpartition(".")
    for test, text in named.get(short, ()):
        if module in text or f"from {parent} import {last}" in text:
            return test
    return None


#: Names too common to say which object a test means.
COMMON = {
    "add", "assign", "create", "delete", "done", "draw", "event", "events", "filter", "get", "list", "normalize", "on", "patch",
    "pop", "pre_filter", "pre_score", "remove_pod", "add_pod", "add_node", "update_node", "score", "sum", "update", "value",
    "match", "stats", "between", "activate", "ends", "is_on", "admit", "record", "available", "unassign", "rest", "run",
}  # fmt: skip


def build() -> str:
    """The tables as Markdown."""
    named = tests_by_name()
    cni = "test_every_recorded_run_replays_without_a_difference"
    lines: list[str] = []
    for title, prefixes, default in PARTS:
        lines += [f"### {title}", "", "| rule | object | test | source |", "| --- | --- | --- | --- |"]
        for path in sorted((ROOT / "eksim").rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not any(module == p or module.startswith(p + ".") for p in prefixes):
                continue
            for name, rule, source in rules_of(path):
                short = name.rpartition(":")[2].rpartition(".")[2]
                test = test_of(module, short, named)
                cells = (_cell(rule), f"`{name}`", f"`{test or default.format(cni=cni)}`", _cell(source))
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


def page() -> str:
    """The whole page with its tables made anew."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{build()}\n{END}{after}"


def main() -> None:
    """The script."""
    fresh = page()
    if "--check" in sys.argv:
        if fresh != PAGE.read_text():
            sys.exit("docs/fidelity.md is not as the code says: run make fidelity")
        return
    PAGE.write_text(fresh)


if __name__ == "__main__":
    main()
