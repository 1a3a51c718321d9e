"""Running a sweep: chunks of configurations on processes of this machine, or on a Dask cluster; resumable, in a fixed order.

Rows do not depend on the number of workers or their order: each configuration is run from its own seed, and chunks are put
in order. A shortcut (equal configurations run once) is allowed where a property test proves it equal; ``simulate_all``
turns it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from eksim.errors import InputError
from eksim.sweep.configure import Base
from eksim.sweep.dataset import Dataset, chunks
from eksim.sweep.dealer import Dealer, Rows, Task
from eksim.sweep.plan import Plan
from eksim.sweep.shortcut import Shortcut

CHUNK = 50
#: How often a chunk whose worker died is tried again.
RETRIES = 3

Progress = Callable[[int, int], None]


def run_sweep(
    plan: Plan,
    dataset: Dataset | None = None,
    *,
    jobs: int | None = None,
    resume: bool = False,
    simulate_all: bool = False,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Rows:
    """All rows, in the order of the configurations. ``dataset``: where chunks are kept as they are done (none: nowhere).

    ``progress(done, total)`` after each chunk. Raises InputError; a failed configuration is a row with its error.
    """
    done: dict[int, Rows] = dataset.open(resume) if dataset is not None else {}
    chunk = dataset.chunk if dataset is not None else CHUNK
    total = len(plan)
    finished = sum(map(len, done.values()))
    if progress is not None:
        progress(finished, total)
    todo = (
        (number, values) for number, values in enumerate(chunks(plan.configurations(), chunk)) if number not in done
    )
    for number, rows in _run_chunks(plan, todo, jobs or os.cpu_count() or 1, simulate_all, dask):
        if dataset is not None:
            dataset.write(number, rows)
        done[number] = rows
        finished += len(rows)
        if progress is not None:
            progress(finished, total)
    return [row for number in sorted(done) for row in done[number]]


def _run_chunks(
    plan: Plan, todo: Iterator[tuple[int, Rows]], jobs: int, simulate_all: bool, dask: str | None
) -> Iterator[tuple[int, Rows]]:
    shortcut = None if simulate_all else Shortcut(Base(plan.base, plan.folder, plan.node_group))
    dealer = Dealer(todo, shortcut)
    if dask is not None:
        from eksim.sweep.on_dask import run_on_dask

        yield from run_on_dask(dask, plan, dealer)
    elif jobs == 1:
        worker = Worker(plan.base, plan.folder, plan.node_group)
        while (task := dealer.next()) is not None:
            dealer.take(task, worker.run(task.values))
            yield from dealer.whole()
    else:
        yield from _run_on_processes(plan, dealer, jobs)


class Worker:
    """Runs configurations; keeps what they share."""

    def __init__(self, document: dict[str, Any], folder: str, node_group: str | None) -> None:
        from eksim.engine.calm import calm_gc
        from eksim.sweep.row import run_row

        self.base = Base(document, folder, node_group)
        self._run_row = run_row
        self._calm = calm_gc

    def run(self, configurations: Rows) -> Rows:
        """Their rows, each simulated."""
        with self._calm():
            return [self._run_row(self.base, values) for values in configurations]


_WORKER: Worker | None = None


def _start_worker(document: dict[str, Any], folder: str, node_group: str | None) -> None:
    global _WORKER
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _WORKER = Worker(document, folder, node_group)


def _work(configurations: Rows) -> Rows:
    assert _WORKER is not None
    return _WORKER.run(configurations)


def _run_on_processes(plan: Plan, dealer: Dealer, jobs: int) -> Iterator[tuple[int, Rows]]:
    tries: dict[int, int] = {}
    again: list[Task] = []
    while True:
        with ProcessPoolExecutor(
            jobs, initializer=_start_worker, initargs=(plan.base, plan.folder, plan.node_group)
        ) as pool:
            waiting: dict[Future[Rows], Task] = {}
            try:
                while True:
                    while len(waiting) < 3 * jobs and (task := again.pop(0) if again else dealer.next()) is not None:
                        if task.values:
                            waiting[pool.submit(_work, task.values)] = task
                        yield from dealer.whole()
                    if not waiting:
                        return
                    ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in ready:
                        rows = future.result()
                        dealer.take(waiting.pop(future), rows)
                        yield from dealer.whole()
            except BrokenProcessPool:
                # a worker died (out of memory, killed): what was under way is tried again with a fresh pool
                again = [*waiting.values(), *again]
                for task in again:
                    tries[task.number] = tries.get(task.number, 0) + 1
                    if tries[task.number] > RETRIES:
                        raise InputError(
                            f"the workers died {RETRIES + 1} times on the same configurations (chunk {task.number})",
                            expected="enough memory for a configuration; fewer --jobs; what is done is kept for --resume",
                        ) from None
            except BaseException:
                # whoever stops a sweep does not wait for the chunks under way, which nobody would take
                for process in list(pool._processes.values()):
                    process.terminate()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
