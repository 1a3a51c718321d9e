"""A sweep's rows on disk: one Parquet file per chunk, each written whole or not at all, so that a killed sweep can go on.

Layout: ``sweep.json`` (what the sweep is, its identity), ``rows/part-00000.parquet`` … in the order of the configurations.
``rows/`` is one Parquet dataset.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
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
        header = self.directory / HEADER
        identity = self.plan.identity()
        if header.exists():
            try:
                found = json.loads(header.read_text())
            except (OSError, ValueError) as error:
                raise InputError(f"{header} cannot be read: {error}", expected="a sweep's results directory") from None
            if found.get("identity") != identity:
                raise InputError(
                    f"{self.directory} holds the results of another sweep ({found.get('name')})",
                    expected="the same sweep, or another --results directory",
                )
            if not resume:
                for part in self.rows.glob("*"):
                    part.unlink()
                return {}
            self.chunk = int(found.get("chunk", self.chunk))
            return self._whole()
        if self.directory.exists() and not all(_begun(p) for p in self.directory.iterdir()):
            raise InputError(
                f"{self.directory} holds files that are not a sweep's results", expected="an empty or new directory"
            )
        try:
            self.rows.mkdir(parents=True, exist_ok=True)
            write_whole(
                header,
                json.dumps(
                    {
                        "name": self.plan.name,
                        "identity": identity,
                        "chunk": self.chunk,
                        "configurations": len(self.plan),
                        "axes": {a.name: len(a.values) for a in self.plan.axes},
                        "mode": self.plan.mode,
                        "columns": self.columns,
                    },
                    indent=1,
                ).encode(),
            )
        except OSError as error:
            raise InputError(
                f"{self.directory} cannot be written: {error.strerror}", expected="a writable directory"
            ) from None
        return {}

    def _whole(self) -> dict[int, list[dict[str, Any]]]:
        done: dict[int, list[dict[str, Any]]] = {}
        self.rows.mkdir(exist_ok=True)
        for leftover in self.rows.glob(".*.tmp"):
            leftover.unlink()
        for part in sorted(self.rows.glob("part-*.parquet")):
            rows = _read_part(part)
            number = int(part.stem.partition("-")[2])
            expected = min(self.chunk, len(self.plan) - number * self.chunk)
            if rows is None or len(rows) != expected:
                part.unlink()  # half-written: computed again
                continue
            done[number] = rows
        return done

    def write(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Write a chunk, whole or not at all. Raises InputError when the disk is full."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({name: _array(name, [r.get(name) for r in rows]) for name in self.columns})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        try:
            write_whole(self.rows / f"part-{number:05d}.parquet", buffer.getvalue())
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


def _array(name: str, values: list[Any]) -> Any:
    import pyarrow as pa

    kind = _KINDS.get(name)
    if kind is None:  # a set field: numbers if all are, else text
        if all(v is None or (isinstance(v, int) and not isinstance(v, bool)) for v in values):
            kind = "i"
        elif all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values):
            kind = "f"
        else:
            return pa.array([None if v is None else _shown(v) for v in values], type=pa.string())
    return pa.array(values, type={"i": pa.int64(), "f": pa.float64(), "s": pa.string()}[kind])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read_part(path: Path) -> list[dict[str, Any]] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError):
        return None


def load_rows(directory: Path | str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, rows) of a sweep's results directory. Raises InputError if it is not one, or a part is not whole."""
    directory = Path(directory)
    try:
        header = json.loads((directory / HEADER).read_text())
    except FileNotFoundError:
        raise InputError(f"{directory} has no {HEADER}", expected="a results directory of eksim sweep") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory / HEADER} cannot be read: {error}", expected="a results directory of eksim sweep"
        ) from None
    rows: list[dict[str, Any]] = []
    for part in sorted((directory / "rows").glob("part-*.parquet")):
        found = _read_part(part)
        if found is None:
            raise InputError(
                f"{part} is truncated or no Parquet file",
                expected="a whole file; eksim sweep --resume computes it again",
            )
        rows += found
    return header, rows
