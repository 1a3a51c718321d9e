"""Damaged results, results of another kind and full disks: one message, exit 2, and nothing that was computed is lost."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from eksim.cli.main import app
from eksim.errors import InputError
from eksim.record.result import Result
from eksim.sweep.dataset import Dataset, load_rows
from eksim.sweep.file import plan_from_flags
from eksim.sweep.runner import run_sweep
from eksim.testing.check import check_result

BASE = "scenarios/scale-to-30.yaml"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run's directory and a sweep's, with the sweep's plan and rows."""
    folder = tmp_path_factory.mktemp("results")
    assert CliRunner().invoke(app, ["run", BASE, "--results", str(folder / "run"), "-q", "--no-picture"]).exit_code == 0
    plan = plan_from_flags(BASE, nodes="1..3")
    return folder, plan, run_sweep(plan, Dataset(folder / "sweep", plan, 1), jobs=1)


@pytest.fixture
def run(ran, tmp_path):
    return shutil.copytree(ran[0] / "run", tmp_path / "run")


@pytest.fixture
def sweep(ran, tmp_path):
    return shutil.copytree(ran[0] / "sweep", tmp_path / "sweep"), ran[1], ran[2]


def said(*arguments):
    """What an eksim command that is refused says."""
    out = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(out.exception, InputError), out.exception
    return str(out.exception)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: [], "holds no JSON object"),
        (lambda s: {**s, "end_s": "soon"}, "end_s is 'soon'"),
        (lambda s: {**s, "nodes": [3]}, "nodes holds 3"),
        (lambda s: {**s, "looks": [{}]}, "is damaged"),
        (lambda s: {**s, "failures": [3]}, "is damaged"),
    ],
)
def test_a_summary_that_is_damaged(run, change, words):
    file = run / "summary.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert words in said("check", run)
    assert words in said("plot", run)


@pytest.mark.parametrize("damage", ["another", "column", "texts"])
def test_a_table_that_is_no_such_table(run, damage):
    frame = pd.read_parquet(run / "addresses.parquet")
    if damage == "column":
        frame = frame.drop(columns="node")
    if damage == "texts":
        frame["total"] = "many"
    frame.to_parquet(run / "addresses.parquet")
    if damage == "another":
        shutil.copy(run / "pods.parquet", run / "addresses.parquet")
    with pytest.raises(InputError, match=r"addresses\.parquet is (damaged|not the table)"):
        check_result(Result.load(run))


@pytest.mark.parametrize("header", [[], {}, {"chunk": "x", "columns": []}, {"chunk": 0, "columns": []}])
def test_a_sweeps_header_that_is_damaged(sweep, header):
    directory, plan, _ = sweep
    (directory / "sweep.json").write_text(json.dumps(header))
    for read in (lambda: load_rows(directory), lambda: Dataset(directory, plan, 1).open(True)):
        with pytest.raises(InputError, match=r"sweep\.json"):
            read()


def test_only_the_rows_of_their_configurations_are_taken_up(sweep):
    directory, plan, rows = sweep
    parts = [directory / "rows" / f"part-0000{n}.parquet" for n in range(3)]
    shutil.copy(parts[1], parts[0])
    content = bytearray(parts[2].read_bytes())
    content[content.index(rows[2]["scenario_hash"].encode())] ^= 1  # a bit of a value
    parts[2].write_bytes(content)
    shutil.copy(parts[1], directory / "rows" / "part-many.parquet")
    assert Dataset(directory, plan, 1).open(True) == {1: [rows[1]]}
    assert run_sweep(plan, Dataset(directory, plan, 1), jobs=1, resume=True) == rows


def test_every_part_of_a_sweep_has_the_same_types(tmp_path):
    plan = plan_from_flags(BASE, settings=["maxPods=17,many,99999999999999999999"])
    run_sweep(plan, Dataset(tmp_path, plan, 1), jobs=1)
    assert len({str(pq.read_schema(part)) for part in (tmp_path / "rows").iterdir()}) == 1
    _, rows = load_rows(tmp_path)
    assert rows[1]["error"] == 'cluster.nodeGroups[0].maxPods: is "many"; expected a whole number'


def test_pictures_that_cannot_be_written_or_drawn(run, ran, tmp_path):
    (tmp_path / "file").write_text("")
    assert "pictures cannot be written" in said("plot", run, "--into", tmp_path / "file")
    plan = plan_from_flags(BASE, nodes="1")
    run_sweep(plan, Dataset(tmp_path / "one", plan, 1), jobs=1)
    assert "varies nothing that there is a picture of" in said("plot", tmp_path / "one")


def test_a_run_that_cannot_be_written_still_reports(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Result, "_write_table", full)
    out = CliRunner().invoke(app, ["run", BASE, "--results", str(tmp_path / "out")])
    assert out.exit_code == 2
    assert "34 of 34 pod slots used" in out.stdout
    assert "No space left on device" in out.stderr
    assert not list(tmp_path.iterdir())


def test_results_whose_picture_cannot_be_written_stay(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("eksim.views.plots.draw_run", full)
    out = CliRunner().invoke(app, ["run", BASE, "--results", str(tmp_path / "out"), "-q"])
    assert (out.exit_code, "the picture cannot be written" in out.stderr) == (2, True)
    assert Result.load(tmp_path / "out").summary["pods"]["Running"] == 34


@pytest.mark.parametrize("kind", ["cni", "scheduler", "controllers", "events"])
def test_recordings_that_are_damaged(tmp_path, kind):
    (tmp_path / "a.json").write_text('{"cases": [{"id": "x", "family": "f", "steps": [3], "ops": [3], "controllers": []}]}')
    out = CliRunner().invoke(app, ["conformance", kind, str(tmp_path / "a.json")])
    assert out.exit_code == 1
    assert out.stdout.startswith("x: the replay broke: ")
    (tmp_path / "a.json").write_text('{"cases": [3]}')
    assert "a.json: cases[0]: is no recorded run" in said("conformance", kind, tmp_path / "a.json")


@pytest.mark.parametrize("command", [["check"], ["plot"], ["run", BASE, "--results"]])
def test_a_name_that_no_directory_can_have(command):
    assert "x" * 300 in said(*command, "x" * 300)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", [["instance-types"], ["schema"], ["max-pods", "t3.medium"]])
def test_an_output_that_takes_nothing(command):
    with Path("/dev/full").open("w") as full:
        out = subprocess.run(
            [sys.executable, "-m", "eksim", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (out.returncode, out.stderr) == (2, "eksim: cannot use the output: No space left on device\n")


def test_an_output_that_is_closed():
    out = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m eksim instance-types t3.nano -o json >&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.returncode, out.stderr) == (0, "")
