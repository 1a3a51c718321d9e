"""The same sweep on an existing Dask cluster: chunks as tasks; a worker that dies costs its chunks' time, nothing else.

Needs the extra ``eksim[dask]``. Workers need the same eksim installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eksim.errors import InputError
from eksim.sweep.plan import Plan
from eksim.sweep.runner import RETRIES, Rows, Worker

CONNECT_TIMEOUT_S = 10

_WORKERS: dict[str, Worker] = {}


def run_chunk(identity: str, arguments: tuple[Any, ...], number: int, values: Rows) -> tuple[int, Rows]:
    """A task: the rows of a chunk. The worker process keeps what its chunks share."""
    worker = _WORKERS.get(identity)
    if worker is None:
        worker = _WORKERS[identity] = Worker(*arguments)
    return number, worker.run(values)


def run_on_dask(
    scheduler: str, plan: Plan, todo: Iterator[tuple[int, Rows]], simulate_all: bool
) -> Iterator[tuple[int, Rows]]:
    """Chunks as they come back. Raises InputError if the scheduler cannot be reached or Dask is not installed."""
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
    arguments = (plan.base, plan.folder, plan.node_group, simulate_all)
    identity = plan.identity() + str(simulate_all)
    with client:
        futures = [
            client.submit(run_chunk, identity, arguments, number, values, pure=False, retries=RETRIES)
            for number, values in todo
        ]
        for future in as_completed(futures, loop=client.loop):
            try:
                yield future.result()
            except Exception as error:
                raise InputError(
                    f"the Dask cluster gave up a chunk: {error}",
                    expected="workers with the same eksim; --resume goes on",
                ) from None
            future.release()
