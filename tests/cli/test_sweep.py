"""``eksim sweep`` and ``eksim search`` as a user runs them: rows, resuming after kill -9, equality with single runs."""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from eksim.errors import InputError
from eksim.sweep.columns import AXES, FIGURES
from eksim.sweep.dataset import Dataset, load_rows
from eksim.sweep.file import is_sweep_file, plan_from_file, plan_from_flags
from eksim.sweep.runner import run_sweep

ROOT = Path(__file__).parents[2]
BASE = ROOT / "scenarios" / "scale-to-30.yaml"


def eksim(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "eksim", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture(scope="module")
def small():
    """A sweep over 24 configurations, with every shortcut off."""
    plan = plan_from_flags(
        BASE, instance_type="t3.small,t3.medium,m5.large", nodes="1..4", settings=["vpcCni.env.WARM_IP_TARGET=0,2"]
    )
    return plan, run_sweep(plan, jobs=1, simulate_all=True)


def test_a_row_per_configuration_with_the_documented_columns(small, tmp_path):
    plan, rows = small
    out = eksim(
        "sweep", BASE, "--instance-type", "t3.small,t3.medium,m5.large", "--nodes", "1..4", "--set",
        "vpcCni.env.WARM_IP_TARGET=0,2", "-o", "csv", "--jobs", "2", cwd=tmp_path,
    )  # fmt: skip
    assert (out.returncode, out.stderr) == (0, "")
    table = list(csv.DictReader(io.StringIO(out.stdout)))
    assert list(table[0]) == [
        *(c.name for c in AXES), "vpcCni.env.WARM_IP_TARGET", *(c.name for c in FIGURES)
    ]  # fmt: skip
    assert len(table) == len(plan) == 24
    assert [r["pods_running"] for r in table] == [str(r["pods_running"]) for r in rows]
    _, kept = load_rows(next((tmp_path / "results").iterdir()))
    assert [{k: r.get(k) for k in rows[0]} for r in kept] == rows


def test_workers_and_their_number_do_not_change_a_row(small):
    plan, rows = small
    assert run_sweep(plan, jobs=2, simulate_all=True) == rows
    assert run_sweep(plan, jobs=1) == rows
    assert run_sweep(plan, jobs=2) == rows


def test_rows_agree_with_single_runs_and_with_counting(small, tmp_path):
    _, rows = small
    document = yaml.safe_load(BASE.read_text())
    document.pop("expect")
    for row in random.Random(7).sample(rows, 6):
        group = document["cluster"]["nodeGroups"][0]
        group["instanceType"], group["size"] = row["instance_type"], row["nodes"]
        document["cluster"]["vpcCni"]["env"] = {"WARM_IP_TARGET": row["vpcCni.env.WARM_IP_TARGET"]}
        (tmp_path / "one.yaml").write_text(yaml.safe_dump(document))
        out = eksim("run", "one.yaml", "-o", "json", "--no-results", cwd=tmp_path)
        summary = json.loads(out.stdout)
        counts = summary["pods"]
        assert (counts.get("Running", 0), counts.get("Pending", 0), counts["stuck"]) == (
            row["pods_running"], row["pods_pending"], row["pods_stuck"]
        )  # fmt: skip
        assert summary["end_s"] == row["settled_s"]
        assert sum(n["addresses_assigned"] for n in summary["nodes"]) == row["addresses_assigned"]
        assert sum(len(n["devices"]) for n in summary["nodes"]) == row["enis"]
        assert summary["rows"]["ec2_calls"] == row["ec2_calls"]
    slots = {"t3.small": 11, "t3.medium": 17, "m5.large": 29}
    for row in rows:
        wanted = 30 + 2 + 2 * row["nodes"]
        assert row["pods_running"] == min(wanted, slots[row["instance_type"]] * row["nodes"])
        assert row["pods_pending"] == wanted - row["pods_running"]
        assert row["bound_by"] == ("pod slots" if row["pods_pending"] else "nothing")


def test_killed_twenty_times_at_random_it_resumes_to_the_same_rows(tmp_path):
    plan = plan_from_flags(BASE, instance_type="t3.small,t3.medium", nodes="1..3")
    rows = run_sweep(plan, jobs=1, simulate_all=True)
    script = (
        "import sys\nfrom pathlib import Path\nfrom eksim.sweep.dataset import Dataset\n"
        "from eksim.sweep.file import plan_from_flags\nfrom eksim.sweep.runner import run_sweep\n"
        f"plan = plan_from_flags({str(BASE)!r}, instance_type='t3.small,t3.medium', nodes='1..3')\n"
        "run_sweep(plan, Dataset(Path(sys.argv[1]), plan, 1), jobs=1, simulate_all=True)\n"
    )
    chance = random.Random(11)
    for turn in range(20):
        folder = tmp_path / str(turn)
        process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stderr=subprocess.PIPE)
        enough = chance.randint(0, len(rows) - 1)
        while len(list(folder.glob("rows/part-*"))) < enough or not folder.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if chance.random() < 0.5:  # a chunk that was cut off in the middle of being written
            (folder / "rows").mkdir(exist_ok=True)
            (folder / "rows" / ".part-00099.parquet.1.tmp").write_bytes(b"PAR1")
        assert run_sweep(plan, Dataset(folder, plan, 1), jobs=1, simulate_all=True, resume=True) == rows


def test_resuming_recomputes_nothing_that_is_whole_and_mends_what_is_not(small, tmp_path):
    plan, rows = small
    run_sweep(plan, Dataset(tmp_path / "s", plan, 5), jobs=1, simulate_all=True)
    parts = sorted((tmp_path / "s" / "rows").glob("part-*"))
    stamps = {p.name: p.stat().st_mtime_ns for p in parts}
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    parts[4].unlink()
    with pytest.raises(InputError, match="truncated"):
        load_rows(tmp_path / "s")
    calls = []
    again = run_sweep(
        plan,
        Dataset(tmp_path / "s", plan, 5),
        jobs=1,
        simulate_all=True,
        resume=True,
        progress=lambda *a: calls.append(a),
    )
    assert again == rows
    assert calls == [(15, 24), (20, 24), (24, 24)]
    kept = {p.name: p.stat().st_mtime_ns for p in sorted((tmp_path / "s" / "rows").glob("part-*"))}
    assert {n for n in stamps if stamps[n] == kept[n]} == {p.name for i, p in enumerate(parts) if i not in (2, 4)}


def test_a_failed_configuration_is_a_row_with_its_error(tmp_path):
    plan = plan_from_flags(BASE, instance_type="t3.medium,p3.2xlarge", nodes="1")
    rows = {r["instance_type"]: r for r in run_sweep(plan, jobs=1)}
    assert rows["t3.medium"]["error"] == ""
    assert "vcpu is not in any of the catalogue's sources" in rows["p3.2xlarge"]["error"]
    assert rows["p3.2xlarge"]["pods_running"] is None


def test_a_sweep_file_is_the_same_as_its_flags(small, tmp_path):
    plan, _ = small
    (tmp_path / "sweep.yaml").write_text(
        f"""\
apiVersion: eksim/v1
kind: Sweep
name: mine
base: {os.path.relpath(BASE, tmp_path)}
axes:
  instanceType: [t3.small, t3.medium, m5.large]
  nodes: 1..4
  set: {{vpcCni.env.WARM_IP_TARGET: [0, 2]}}
"""
    )
    read = plan_from_file(tmp_path / "sweep.yaml")
    assert list(read.configurations()) == list(plan.configurations())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "20..1"], "runs backwards"),
        (["--instance-type", "zz.*"], "no instance type matches 'zz.*'"),
        (["--set", "vpcCni.env.WARM_IP_TARGE=1"], "did you mean WARM_IP_TARGET?"),
        (["--set", "vpcCnj.env.X=1"], "did you mean vpcCni?"),
        (["--nodes", "1", "--node-group", "nope"], "no node group is called 'nope'"),
        (["--nodes", "1", "--dask", "tcp://127.0.0.1:1"], "cannot be reached"),
        (["--nodes", "200000"], "at most 100000"),
        (["--replicas", "9999999999"], "at most 1000000"),
        (["--seeds", "99999999999999999999"], "is too many"),
        (["--set", "seed=abc"], "'abc' is not a number or range"),
        (["--set", "nodes=-3"], "the axis --nodes"),
        (["--set", "maxPodz=3"], "maxPodz: no scenario field is called 'maxPodz'"),
        (["--instance-type", "vcpu<=x"], "vcpu is a number, which does not compare with x"),
    ],
)
def test_bad_axes_are_refused_before_anything_runs(tmp_path, arguments, said):
    out = eksim("sweep", BASE, *arguments, "--results", "out", cwd=tmp_path)
    assert (out.returncode, "Traceback" in out.stderr) == (2, False)
    assert said in out.stderr
    assert len(out.stderr.strip().split("\n")) == 1


def test_results_of_another_sweep_are_left_alone(tmp_path):
    assert eksim("sweep", BASE, "--nodes", "1", "--results", "out", cwd=tmp_path).returncode == 0
    before = (tmp_path / "out" / "rows" / "part-00000.parquet").read_bytes()
    out = eksim("sweep", BASE, "--nodes", "2", "--results", "out", cwd=tmp_path)
    assert out.returncode == 2
    assert "holds the results of another sweep" in out.stderr
    assert (tmp_path / "out" / "rows" / "part-00000.parquet").read_bytes() == before


def test_a_mistake_in_a_sweep_file_is_named_with_its_line(tmp_path):
    (tmp_path / "s.yaml").write_text(f"apiVersion: eksim/v1\nkind: Sweep\nbase: {BASE}\naxes:\n  nodez: 1..3\n")
    out = eksim("sweep", "s.yaml", cwd=tmp_path)
    assert out.returncode == 2
    assert "s.yaml:5: axes.nodez: unknown field" in out.stderr
    assert "did you mean nodes?" in out.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: Sweep", "kind: Sweeep", "s.yaml:2: kind: kind is 'Sweeep'; expected kind: Sweep, or"),
        ("kind: Sweep", "", "s.yaml:1: kind: lacks 'kind'"),
        ("name: mine", "name: ../mine", "s.yaml:3: name: is '../mine'; expected letters, digits"),
        ("base: ", "base: x", "s.yaml:4: base: x"),
        ("nodes: 1..3", "nodes: [1, null]", "s.yaml:6: axes.nodes: is null; expected 3, 1..20"),
        ("nodes: 1..3", "nodes: {a: 1}", "s.yaml:6: axes.nodes: is {'a': 1}; expected 3, 1..20"),
        ("maxPods:", "maxPodz:", "s.yaml:7: axes: maxPodz: no scenario field is called 'maxPodz'"),
        ("maxPods: [17]", "maxPods: [many]", "s.yaml:7: axes: cluster.nodeGroups[0].maxPods: is \"many\"; expected a whole"),
        ("maxPods:", "nodes:", "s.yaml:7: axes.set: nodes is no scenario field by path; expected the axis --nodes"),
        ("axes:", "nodeGroup: other\naxes:", "s.yaml:5: nodeGroup: no node group is called 'other'; expected one of ng"),
        ("axes:", "nodeGroup: [ng]\naxes:", "s.yaml:5: nodeGroup: is ['ng']; expected the name"),
        ("axes:", "mode: [grid]\naxes:", "s.yaml:5: mode: is ['grid']; expected grid or zip"),
    ],
)
def test_every_part_of_a_sweep_file_is_checked(tmp_path, old, new, said):
    shutil.copy(BASE, tmp_path / "base.yaml")
    text = (
        "apiVersion: eksim/v1\nkind: Sweep\nname: mine\nbase: base.yaml\naxes:\n  nodes: 1..3\n  set: {maxPods: [17]}\n"
    )
    (tmp_path / "s.yaml").write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        is_sweep_file(tmp_path / "s.yaml")
        plan_from_file(tmp_path / "s.yaml")
    assert said in str(caught.value)


def test_search_answers_with_the_run_below_and_the_run_at_the_answer(tmp_path):
    out = eksim(
        "search",
        BASE,
        "--replicas",
        "40",
        "--vary",
        "nodes=1..10",
        "--until",
        "pods_pending == 0",
        "-o",
        "json",
        cwd=tmp_path,
    )
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    assert (found["answer"], found["nodes"], found["instance_type"], found["method"]) == (
        3,
        3,
        "t3.medium",
        "bisection",
    )
    assert [(e["nodes"], e["meets"], e["pods_pending"] > 0) for e in found["evidence"]] == [
        (2, False, True),
        (3, True, False),
    ]
    assert found["usd_per_hour"] == pytest.approx(3 * 0.0416)


def test_search_over_types_gives_the_cheapest(tmp_path):
    out = eksim(
        "search", BASE, "--vary", "nodes=1..6", "--until", "pods_pending == 0", "--instance-type", "t3.small,t3.medium,t3.large",
        "-o", "json", cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(out.stdout)
    # 1 × t3.large has 35 slots for 34 pods; 3 × t3.medium or 5 × t3.small cost more
    assert (found["answer"], found["instance_type"]) == (1, "t3.large")


def test_types_that_cannot_be_run_are_left_out_of_a_search(tmp_path):
    # p3.2xlarge has no vCPU in any source
    out = eksim("search", BASE, "--vary", "nodes=1..6", "--until", "pods_pending == 0", "--instance-type",
                "p3.2xlarge,t3.large", "-o", "json", cwd=tmp_path)  # fmt: skip
    found = json.loads(out.stdout)
    assert (found["answer"], found["instance_type"], list(found["left_out"])) == (1, "t3.large", ["p3.2xlarge"])


def test_a_condition_that_is_not_monotone_is_searched_by_sweep(tmp_path):
    out = eksim("search", BASE, "--vary", "nodes=1..4", "--until", "ec2_calls > 20", "-o", "json", cwd=tmp_path)
    assert json.loads(out.stdout)["method"] == "sweep"


def test_the_smallest_subnet(tmp_path):
    out = eksim(
        "search",
        BASE,
        "--vary",
        "subnet=/28../22",
        "--until",
        "pods_stuck == 0",
        "--nodes",
        "2",
        "-o",
        "json",
        cwd=tmp_path,
    )
    found = json.loads(out.stdout)
    assert found["answer"] == 27, found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vary", "nodes=1..3", "--until", "pods_pending ="], "expected a value"),
        (["--vary", "nodes=1..3", "--until", "pods == 0"], "unknown name 'pods'"),
        (["--vary", "nodes", "--until", "pods_pending == 0"], "is not a range to vary"),
        (["--vary", "nodes=3..1", "--until", "pods_pending == 0"], "runs backwards"),
        (["--vary", "subnet=/9../28", "--until", "pods_pending == 0"], "is not a range of subnet sizes"),
        (["--vary", "instance_type=1..3", "--until", "pods_pending == 0"], "is no range of numbers"),
        (["--vary", "nodes=200000", "--until", "pods_pending == 0"], "--vary: 200000 is too many"),
        (["--vary", "nodes=1..3", "--until", "pods_pending == none"], "pods_pending is a number"),
        (["--vary", "nodes=1..3", "--until", "bound_by > 3"], "bound_by is text"),
    ],
)
def test_a_search_that_cannot_be_understood(tmp_path, arguments, said):
    out = eksim("search", BASE, *arguments, cwd=tmp_path)
    assert (out.returncode, "Traceback" in out.stderr) == (2, False)
    assert said in out.stderr
