"""``eksim check`` as a user runs it: what holds, what does not, what is no result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LAB = Path(__file__).parents[2] / "scenarios" / "lab.yaml"


def eksim(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eksim", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def result(tmp_path: Path) -> Path:
    made = tmp_path / "lab"
    assert eksim("run", LAB, "--results", made, "--no-picture", "-q").returncode == 0
    return made


def test_the_labs_result_holds(result: Path) -> None:
    out = eksim("check", result)
    assert (out.returncode, out.stderr) == (0, "")
    assert "14 of 14 invariants hold; 7 cannot be judged from tables" in out.stdout


def test_a_result_in_which_more_pods_run_than_fit_does_not_hold(result: Path) -> None:
    path = result / "nodes.parquet"
    table = pq.read_table(path)
    column = table.column_names.index("max_pods")
    pq.write_table(table.set_column(column, "max_pods", pa.array([5] * len(table), table.schema.types[column])), path)
    out = eksim("check", result, "-o", "json")
    assert out.returncode == 1
    assert "max-pods-by-formula" in {row["invariant"] for row in json.loads(out.stdout)["violations"]}


@pytest.mark.parametrize("damage", ["no directory", "empty", "cut"])
def test_what_is_no_result_is_said_in_a_line(result: Path, damage: str) -> None:
    if damage == "no directory":
        result = result / "nowhere"
    elif damage == "empty":
        for file in result.iterdir():
            file.unlink()
    else:
        whole = (result / "pods.parquet").read_bytes()
        (result / "pods.parquet").write_bytes(whole[: len(whole) // 2])
    out = eksim("check", result)
    assert out.returncode == 2
    assert "Traceback" not in out.stderr
    assert str(result) in out.stderr.replace("\n", "")
