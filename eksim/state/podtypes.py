"""The Go types that a pod template is made of: one table, read by the hash of templates and by the check of manifests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

#: (Go name, Go type, JSON name, first and last minor release that has the field); the JSON name of an embedded struct is "".
FieldRow = tuple[str, str, str, int, int]


@lru_cache(maxsize=1)
def field_table() -> tuple[dict[str, list[FieldRow]], dict[str, str]]:
    """(fields by struct, underlying type by named type), for all releases together."""
    rows: dict[str, list[FieldRow]] = {}
    underlying: dict[str, str] = {}
    text = (Path(__file__).parent / "data" / "pod_template_fields.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        struct, *fields = line.split("\t")
        if fields[0].startswith("="):
            underlying[struct] = fields[0][1:]
            continue
        parsed = rows[struct] = []
        for field in fields:
            name, go_type, json_name, since, until = (*field.split("|"), "", "", "")[:5]
            parsed.append((name, go_type, json_name, int(since or 0), int(until or 999)))
    return rows, underlying
