"""What a run gave: tables, summary, pictures; written whole or not at all, and read back.

A results directory holds one Parquet file per table of ``tables.py``, ``summary.json`` (written last: a directory without it
is not whole), what the scenario's reader saw (``looks.txt``), and the pictures.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eksim.errors import EksimError, InputError
from eksim.record.recorder import Table, TextColumn
from eksim.record.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"


@dataclass(slots=True)
class LookSeen:
    """What a reader's command printed: at ``time_s``, the lines."""

    time_s: float
    command: str
    text: str


@dataclass(slots=True)
class Failure:
    """An expectation that did not hold."""

    where: str
    what: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: expected {self.expected}, got {self.actual}"


@dataclass(slots=True)
class Result:
    """A finished (or interrupted) run.

    ``summary``: versions, seed, scenario hash and name, final counts, cause; ``complete``: False after Ctrl-C, or if the
    run had to stop (``stopped``: why; not kept on disk); ``failures``: expectations that did not hold. The tables are
    pandas DataFrames, made when first asked for; their columns and units are in ``eksim.record.tables.TABLES``.
    """

    summary: dict[str, Any]
    looks: list[LookSeen] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    _tables: dict[str, Table] = field(default_factory=dict, repr=False)
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    directory: Path | None = None
    stopped: EksimError | None = None

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary.get("complete", False))

    def table(self, name: str) -> pd.DataFrame:
        """A table by name: events, pods, nodes, enis, addresses, subnets or ec2_calls."""
        frame = self._frames.get(name)
        if frame is None:
            frame = self._frames[name] = self._make_frame(name)
        return frame

    @property
    def events(self) -> pd.DataFrame:
        """Events as they were recorded."""
        return self.table("events")

    @property
    def pods(self) -> pd.DataFrame:
        """A row per change of a pod."""
        return self.table("pods")

    @property
    def nodes(self) -> pd.DataFrame:
        """A row per change of a node."""
        return self.table("nodes")

    @property
    def enis(self) -> pd.DataFrame:
        """When each ethN came and went."""
        return self.table("enis")

    @property
    def addresses(self) -> pd.DataFrame:
        """ipamd's pool of each node over time."""
        return self.table("addresses")

    @property
    def subnets(self) -> pd.DataFrame:
        """Free addresses of each subnet over time."""
        return self.table("subnets")

    @property
    def ec2_calls(self) -> pd.DataFrame:
        """Every call to EC2 with its answer."""
        return self.table("ec2_calls")

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """A table's rows as tuples, in the order of its columns; without pandas."""
        table = self._tables.get(name)
        if table is None:
            return [tuple(r) for r in self.table(name).itertuples(index=False)]
        return list(zip(*(c.values() if isinstance(c, TextColumn) else c for c in table.columns.values()), strict=True))

    def _make_frame(self, name: str) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        if name not in TABLES:
            raise InputError(f"no table is called {name!r}", expected="one of " + ", ".join(TABLES))
        if name not in self._tables:
            if self.directory is None:
                raise InputError(f"this result has no table {name!r}", expected="a run with its recorder on")
            try:
                frame = pd.read_parquet(self.directory / f"{name}.parquet")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self.directory / name}.parquet is truncated or no Parquet file: {error}", expected="a whole file"
                ) from None
            return _checked_frame(frame, name, self.directory)
        data: dict[str, Any] = {}
        for column, values in self._tables[name].columns.items():
            if isinstance(values, TextColumn):
                data[column] = pd.Series(values.values(), dtype=object)
            else:
                data[column] = np.array(values, dtype=np.int64 if values.typecode == "q" else np.float64)
        return pd.DataFrame(data)

    def save(self, directory: Path | str) -> Path:
        """Write everything to a directory, whole or not at all. Raises InputError if it holds something else."""
        target = Path(directory)
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is not a directory", expected="a directory for results")
        if target.is_dir() and any(target.iterdir()) and not (target / SUMMARY).exists():
            raise InputError(f"{target} holds files that are not a run's results", expected="an empty or new directory")
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            temporary.mkdir(parents=True)
            for name in TABLES:
                self._write_table(name, temporary / f"{name}.parquet")
            (temporary / "looks.txt").write_text(self.looks_text())
            (temporary / SUMMARY).write_text(json.dumps(self.summary, indent=1, sort_keys=True) + "\n")
            if target.exists():
                old = target.with_name(f".{target.name}.{os.getpid()}.old")
                target.rename(old)
                temporary.rename(target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.rename(target)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(
                f"results cannot be written to {target}: {error.strerror or error}",
                expected="a writable directory with space",
            ) from None
        self.directory = target
        return target

    def looks_text(self) -> str:
        """Everything the scenario's reader saw, in order."""
        return "".join(f"[{look.time_s:.3f} s] $ {look.command}\n{look.text}\n" for look in self.looks)

    def _write_table(self, name: str, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = self._tables.get(name)
        if table is None:
            self.table(name).to_parquet(path, index=False)
            return
        columns: dict[str, Any] = {}
        for column in TABLES[name]:
            values = table.columns[column.name]
            if isinstance(values, TextColumn):
                columns[column.name] = pa.DictionaryArray.from_arrays(
                    _arrow_numbers(pa, pa.int32(), values.codes), _arrow_texts(pa, values.texts)
                )
            else:
                columns[column.name] = _arrow_numbers(pa, pa.int64() if column.kind == "i" else pa.float64(), values)
        meta = {c.name: c.meaning for c in TABLES[name]}
        arrow = pa.table(columns).replace_schema_metadata({"eksim": json.dumps(meta)})
        pq.write_table(arrow, path)

    @staticmethod
    def load(directory: Path | str) -> Result:
        """Read a results directory back. Raises InputError if it is not whole."""
        path = Path(directory)
        try:
            summary = json.loads((path / SUMMARY).read_text())
        except FileNotFoundError:
            raise InputError(f"{path} has no {SUMMARY}", expected="a results directory of eksim run") from None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path / SUMMARY} cannot be read: {error}", expected="a results directory of eksim run"
            ) from None
        _check_summary(summary, path / SUMMARY)
        missing = [name for name in TABLES if not (path / f"{name}.parquet").is_file()]
        if missing:
            raise InputError(f"{path} lacks {missing[0]}.parquet", expected="a whole results directory of eksim run")
        try:
            looks = [LookSeen(**look) for look in summary.get("looks", [])]
            failures = [Failure(**f) for f in summary.get("failures", [])]
        except TypeError as error:
            raise InputError(
                f"{path / SUMMARY} is damaged: {error}", expected="a results directory of eksim run"
            ) from None
        return Result(summary, looks, failures, directory=path)


#: What pictures and checks read of a summary, and as what.
_READ: dict[str, type | tuple[type, ...]] = {
    "scenario": str,
    "seed": int,
    "end_s": (int, float),
    "nodes": list,
    "cause": str,
    "max_pods_set": list,
    "address_limit": int,
}


def _check_summary(summary: Any, path: Path) -> None:
    whole = "the summary that eksim run wrote"
    if not isinstance(summary, dict):
        raise InputError(f"{path} holds no JSON object", expected=whole)
    for key, kind in _READ.items():
        if not isinstance(summary.get(key), kind):
            raise InputError(f"{path} is damaged: {key} is {summary.get(key)!r}", field=key, expected=whole)
    for node in summary["nodes"]:
        if not isinstance(node, dict) or not isinstance(node.get("max_pods"), int):
            raise InputError(f"{path} is damaged: nodes holds {node!r}", field="nodes", expected=whole)


def _checked_frame(frame: pd.DataFrame, name: str, directory: Path) -> pd.DataFrame:
    """A table as it was read, if it has the columns that a run writes. Raises InputError."""
    path = directory / f"{name}.parquet"
    wanted = [c.name for c in TABLES[name]]
    if list(frame.columns) != wanted:
        raise InputError(f"{path} is not the table {name!r} of a run", expected="the columns " + ", ".join(wanted))
    for column in TABLES[name]:
        values = frame[column.name]
        text = column.kind == "s"
        if (values.dtype.kind in "iuf") == text or (column.kind != "?" and values.isna().any()):
            raise InputError(
                f"{path} is damaged: {column.name} holds other values", expected="text" if text else "numbers"
            )
    return frame.astype({c.name: object for c in TABLES[name] if c.kind == "s"})


# Arrow arrays from buffers: pyarrow's own conversion would import pandas first.


def _arrow_numbers(pa: Any, kind: Any, values: array[Any]) -> Any:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.tobytes())])


def _arrow_texts(pa: Any, texts: list[str]) -> Any:
    parts = [text.encode() for text in texts]
    offsets = array("i", [0])
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return pa.Array.from_buffers(pa.string(), len(parts), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(parts))])
