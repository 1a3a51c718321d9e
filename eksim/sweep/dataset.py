"""A sweep's rows on disk: one Parquet file per chunk, each written whole or not at all, so that a killed sweep can go on.

Layout: ``sweep.json`` (what the sweep is, its identity), ``rows/part-00000.parquet`` … in the order of the configurations.
``rows/`` is one Parquet dataset.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eksim.errors import InputError
from eksim.sweep.columns import AXES, FIGURES
from eksim.sweep.plan import Plan

HEADER = "sweep.json"
_KINDS = {c.name: c.kind for c in (*AXES, *FIGURES)}


def column_names(plan: Plan) -> list[str]:
    """The rows' columns in order: the usual axes, each set field, the figures."""
    axes = [c.name for c in AXES]
    return [*axes, *(a.name for a in plan.axes if a.name not in axes), *(c.name for c in FIGURES)]


class Dataset:
    """The directory of one sweep."""

    def __init__(self, directory: Path, plan: Plan, chunk: int) -> None:
        self.directory = directory
        self.plan = plan
        self.chunk = chunk
        self.columns = column_names(plan)
        self.rows = directory / "rows"

    def open(self, resume: bool) -> dict[int, list[dict[str, Any]]]:
        """Make or take up the directory; the chunks that are whole already. Raises InputError if it is another sweep's."""
        try:
            return self._open(resume)
        except OSError as error:
            raise InputError(
                f"{self.directory} cannot be written: {error.strerror}", expected="a writable directory"
            ) from None

    def _open(self, resume: bool) -> dict[int, list[dict[str, Any]]]:
        header = self.directory / HEADER
        identity = self.plan.identity()
        if header.exists():
            found = read_header(self.directory)
            if found.get("identity") != identity:
                raise InputError(
                    f"{self.directory} holds the results of another sweep ({found.get('name')})",
                    expected="the same sweep, or another --results directory",
                )
            if not resume:
                for part in self.rows.glob("*"):
                    part.unlink()
                return {}
            self.chunk = found["chunk"]
            return self._whole()
        if self.directory.exists() and not all(_begun(p) for p in self.directory.iterdir()):
            raise InputError(
                f"{self.directory} holds files that are not a sweep's results", expected="an empty or new directory"
            )
        self.rows.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.plan.name,
            "identity": identity,
            "chunk": self.chunk,
            "configurations": len(self.plan),
            "axes": {a.name: len(a.values) for a in self.plan.axes},
            "mode": self.plan.mode,
            "columns": self.columns,
        }
        write_whole(header, json.dumps(content, indent=1).encode())
        return {}

    def _whole(self) -> dict[int, list[dict[str, Any]]]:
        done: dict[int, list[dict[str, Any]]] = {}
        self.rows.mkdir(exist_ok=True)
        for leftover in self.rows.glob(".*.tmp"):
            leftover.unlink()
        parts = {part.name: part for part in self.rows.glob("part-*.parquet")}
        for number, values in enumerate(chunks(self.plan.configurations(), self.chunk)):
            part = parts.pop(_part_name(number), None)
            rows = None if part is None else _read_part(part)
            if rows is not None and self._are_of(rows, values):
                done[number] = rows
            elif part is not None:
                part.unlink()  # half-written or another's: computed again
        for part in parts.values():
            part.unlink()
        return done

    def _are_of(self, rows: list[dict[str, Any]], configurations: list[dict[str, Any]]) -> bool:
        """Whether rows that were read are those of these configurations."""
        if len(rows) != len(configurations):
            return False
        return all(
            list(row) == self.columns
            and all(_same(row[name], value) for name, value in values.items())
            and isinstance(row["error"], str)
            and (row["error"] != "" or row["pods_running"] is not None)
            for row, values in zip(rows, configurations, strict=True)
        )

    def write(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Write a chunk, whole or not at all. Raises InputError when the disk is full."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = _KINDS | {a.name: _kind_of(a.values) for a in self.plan.axes if a.name not in _KINDS}
        table = pa.table({name: _array(kinds[name], [r.get(name) for r in rows]) for name in self.columns})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, write_page_checksum=True)
        try:
            write_whole(self.rows / _part_name(number), buffer.getvalue())
        except OSError as error:
            raise InputError(
                f"{self.rows} cannot be written: {error.strerror}; what was written stays and --resume goes on from there",
                expected="a directory with space",
            ) from None


def _begun(path: Path) -> bool:
    """Whether a directory's entry is what a sweep leaves that was killed before its header stood."""
    if path.name == "rows":
        return all(p.name.startswith(".part-") and p.suffix == ".tmp" for p in path.iterdir())
    return path.name.startswith(f".{HEADER}.")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def chunks(items: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Configurations in chunks, in order."""
    while True:
        part = list(itertools.islice(items, size))
        if not part:
            return
        yield part


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _kind_of(values: Sequence[Any]) -> str:
    """The kind of a set field's column, from all of its values, so that every part has the same: numbers if all are."""
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values if v is not None):
        return "s"
    if all(isinstance(v, int) for v in values if v is not None):
        return "i" if all(abs(v) < 2**63 for v in values if v is not None) else "s"
    return "f"


def _array(kind: str, values: list[Any]) -> Any:
    import pyarrow as pa

    if kind == "s":
        return pa.array([None if v is None else _shown(v) for v in values], type=pa.string())
    return pa.array(values, type={"i": pa.int64(), "f": pa.float64()}[kind])


def _same(read: Any, value: Any) -> bool:
    """Whether a value that was read is the one that was written."""
    return bool(read == value) or (isinstance(read, str) and read == _shown(value))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read_part(path: Path) -> list[dict[str, Any]] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path, page_checksum_verification=True).to_pylist())
    except (pa.ArrowException, OSError, ValueError):
        return None


def read_header(directory: Path) -> dict[str, Any]:
    """What a sweep's directory says of itself. Raises InputError if it does not."""
    path = directory / HEADER
    expected = "a results directory of eksim sweep"
    try:
        header = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{directory} has no {HEADER}", expected=expected) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", expected=expected) from None
    if not isinstance(header, dict):
        raise InputError(f"{path} holds no JSON object", expected=expected)
    chunk, columns = header.get("chunk"), header.get("columns")
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1 or not isinstance(columns, list):
        raise InputError(f"{path} is damaged: it lacks the size of a chunk or the columns", expected=expected)
    return header


def load_rows(directory: Path | str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, rows) of a sweep's results directory. Raises InputError if it is not one, or a part is not whole."""
    directory = Path(directory)
    header = read_header(directory)
    rows: list[dict[str, Any]] = []
    for part in sorted((directory / "rows").glob("part-*.parquet")):
        found = _read_part(part)
        if found is None or any(list(row) != header["columns"] for row in found):
            raise InputError(
                f"{part} is truncated or no Parquet file",
                expected="a whole file; eksim sweep --resume computes it again",
            )
        rows += found
    return header, rows
