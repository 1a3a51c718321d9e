"""eksim: a discrete-event simulator of an EKS cluster's pod IP capacity.

The public front, loaded on first use::

    import eksim

    result = eksim.run("scenarios/lab.yaml")
    result.pods        # a pandas DataFrame; columns and units in eksim.record.tables
    result.summary["cause"]

``run`` plays a scenario file, ``load_scenario`` reads and checks one, ``Result.load`` reads results back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["InputError", "Result", "__version__", "load_scenario", "run"]

if TYPE_CHECKING:
    from eksim.errors import InputError
    from eksim.play.run import run
    from eksim.record.result import Result
    from eksim.scenario.load import load_scenario

_HOME = {
    "InputError": "eksim.errors",
    "Result": "eksim.record.result",
    "load_scenario": "eksim.scenario.load",
    "run": "eksim.play.run",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'eksim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
