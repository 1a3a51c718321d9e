"""Reading recorded runs, and saying how a replay went: shared by the replays of ipamd, scheduler, controllers, events.

A recording is JSON, gzipped or not; a file holds one trace or a collection (``traces`` or ``cases``).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eksim.errors import InputError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one recorded run replayed: ``difference`` is the first difference in words, None if there was none."""

    id: str
    family: str
    difference: str | None


def read_recording(path: Path | str) -> dict[str, Any]:
    """The JSON object in a recording, gzipped or not. Raises InputError naming the file."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        data = json.loads(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read: {error}", str(path), expected="a recording, JSON or gzipped JSON") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", str(path), expected="a recording, JSON or gzipped JSON") from None
    if not isinstance(data, dict):
        raise InputError("holds no JSON object", str(path), expected="a recording")
    return data


def runs_in(data: dict[str, Any], path: Path | str) -> list[dict[str, Any]]:
    """The traces or cases of a recording: a collection's, or the recording itself if it is a single one."""
    for key in ("traces", "cases"):
        if isinstance(data.get(key), list):
            for i, run in enumerate(data[key]):
                if not isinstance(run, dict):
                    raise InputError("is no recorded run", str(path), field=f"{key}[{i}]", expected="a JSON object")
            return list(data[key])
    if isinstance(data.get("steps"), list):
        return [data]
    raise InputError("holds neither steps nor traces nor cases", str(path), expected="a recorded run or a collection")


def replay_files(
    paths: Iterable[Path | str], replay: Callable[[dict[str, Any], dict[str, Any]], Iterable[Outcome]]
) -> Iterator[Outcome]:
    """Replay every run of every file: ``replay(run, whole_file)`` gives its outcomes."""
    for path in paths:
        data = read_recording(path)
        for run in runs_in(data, path):
            yield from unbroken(run, replay, run, data)


def unbroken(run: dict[str, Any], replay: Callable[..., Iterable[Outcome]], *args: Any) -> Iterator[Outcome]:
    """``replay(*args)``'s outcomes of a run; a recording that breaks it is a difference too, not the end of the others."""
    try:
        yield from replay(*args)
    except Exception as error:
        broke = f"the replay broke: {type(error).__name__}: {error}"
        yield Outcome(str(run.get("id", "")), str(run.get("family", "")), broke)
