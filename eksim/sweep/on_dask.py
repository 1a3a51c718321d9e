"""The same sweep on an existing Dask cluster: chunks as tasks; a worker that dies costs its chunks' time, nothing else.

Needs the extra ``eksim[dask]``. Workers need the same eksim installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eksim.errors import InputError
from eksim.sweep.dealer import Dealer, Rows, Task
from eksim.sweep.plan import Plan
from eksim.sweep.runner import RETRIES, Worker

CONNECT_TIMEOUT_S = 10

_WORKERS: dict[str, Worker] = {}


def run_task(identity: str, arguments: tuple[Any, ...], configurations: Rows) -> Rows:
    """A task: the rows of its configurations. The worker process keeps what its tasks share."""
    worker = _WORKERS.get(identity)
    if worker is None:
        worker = _WORKERS[identity] = Worker(*arguments)
    return worker.run(configurations)


def run_on_dask(scheduler: str, plan: Plan, dealer: Dealer) -> Iterator[tuple[int, Rows]]:
    """Chunks as they become whole. Raises InputError if the scheduler cannot be reached or Dask is not installed."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise InputError("--dask needs Dask", expected="pip install 'eksim[dask]'") from None
    try:
        client = Client(scheduler, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"the Dask scheduler {scheduler} cannot be reached: {error}", expected="the address of a running scheduler"
        ) from None
    arguments = (plan.base, plan.folder, plan.node_group)
    identity = plan.identity()
    tasks: dict[Any, Task] = {}
    with client:
        coming = as_completed(loop=client.loop)

        def deal() -> Iterator[tuple[int, Rows]]:
            """Hand out all that can be run now."""
            while (task := dealer.next()) is not None:
                if task.values:
                    future = client.submit(run_task, identity, arguments, task.values, pure=False, retries=RETRIES)
                    tasks[future] = task
                    coming.add(future)
                yield from dealer.whole()

        yield from deal()
        for future in coming:
            try:
                rows = future.result()
            except Exception as error:
                raise InputError(
                    f"the Dask cluster gave up a task: {error}",
                    expected="workers with the same eksim; --resume goes on",
                ) from None
            dealer.take(tasks.pop(future), rows)
            future.release()
            yield from dealer.whole()
            yield from deal()
