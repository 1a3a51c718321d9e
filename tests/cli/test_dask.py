"""``--dask``: the same sweep on a cluster of two workers gives the same rows, also when one is killed midway."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eksim.sweep.dataset import Dataset
from eksim.sweep.file import plan_from_flags
from eksim.sweep.runner import run_sweep

BASE = Path(__file__).parents[2] / "scenarios" / "scale-to-30.yaml"
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(scheduler address, worker processes) of a scheduler and two worker processes on this machine."""
    folder = tmp_path_factory.mktemp("dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    address = folder / "scheduler.json"
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", str(address)],
        **quiet,
    )  # fmt: skip
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                "--scheduler-file",
                str(address),
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--host",
                "127.0.0.1",
            ],
            **quiet,
        )
        for _ in range(2)
    ]
    with distributed.Client(scheduler_file=str(address), timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield client.scheduler_info()["address"], workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def test_a_killed_worker_costs_nothing_but_time(cluster, tmp_path):
    address, workers = cluster
    plan = plan_from_flags(BASE, instance_type="t3.small,t3.medium,m5.large", nodes="1..8")
    expected = run_sweep(plan, jobs=1, simulate_all=True)
    done = []

    def kill_one(count, total):
        done.append(count)
        if 0 < count < total and workers[0].poll() is None:
            os.kill(workers[0].pid, signal.SIGKILL)

    rows = run_sweep(plan, Dataset(tmp_path / "out", plan, 2), dask=address, simulate_all=True, progress=kill_one)
    deadline = time.monotonic() + 30
    while workers[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers[0].poll() is not None
    assert rows == expected
    assert done[-1] == len(plan)
