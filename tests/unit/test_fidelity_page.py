"""``docs/fidelity.md`` is as the code says: every object it names exists, every test it names exists, none is missing."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text()
ROWS = re.findall(r"^\| .+ \| `(eksim[\w.]*:[\w.]+)` \| `(tests/[\w./]+)::(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)


def test_every_object_of_the_page_exists():
    for name, *_ in ROWS:
        module, _, path = name.partition(":")
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        assert found is not None


def test_every_test_of_the_page_exists():
    tests: dict[str, set[str]] = {}
    for _, file, name, _ in ROWS:
        if file not in tests:
            tree = ast.parse((ROOT / file).read_text())
            tests[file] = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        assert name in tests[file], (file, name)


def test_the_rules_of_every_component_are_there():
    table_lines = [line for line in PAGE.split("\n") if line.startswith("| ") and "`tests/" in line and "::" in line]
    assert len(ROWS) == len(table_lines) > 350
    for component in ("eksim.cni.", "eksim.kube.scheduler.", "eksim.kube.controllers.", "eksim.kube.event"):
        assert sum(name.startswith(component) for name, *_ in ROWS) >= 12, component


def test_the_page_is_as_the_code_says():
    subprocess.run([sys.executable, "docs/make_fidelity.py", "--check"], cwd=ROOT, check=True)
