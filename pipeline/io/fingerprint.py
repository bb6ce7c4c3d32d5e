"""The fingerprint of a feature set: what decides the space of its vectors, as each of its Parquet files records.

It has kind, settings, model, revision, prompt, weights and image size. Vectors of two fingerprints are never one set,
even if they are equally wide. Third-party files record none, and pass.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignrec.pipeline.errors import UserError, one_line

KEY = "fingerprint"  # in the record of a file
SHOWN = 40  # characters of a value in a message
DEEPEST = 16  # levels of objects and lists in one another
Fingerprint = Mapping[str, Any]


def fingerprint_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint in an untrusted record; empty for none, or one nested too deep."""
    found = record.get(KEY)
    return found if isinstance(found, dict) and _is_shallow(found, DEEPEST) else {}


def first_difference(a: Fingerprint, b: Fingerprint, within: str = "") -> str:
    for key in (key for key in a if key in b):
        x, y = a[key], b[key]
        if isinstance(x, dict) and isinstance(y, dict):
            if found := first_difference(x, y, within if key == "parts" else f"{within}{key}: "):
                return found
        elif x != y:
            return f"{one_line(within + key, SHOWN)} {one_line(repr(x), SHOWN)} and {one_line(repr(y), SHOWN)}"
    return ""


def require_one(records: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    first: tuple[Path, dict[str, Any]] | None = None
    for path, record in records:
        own = fingerprint_of(record)
        if not own:
            continue
        first = first or (path, own)
        if found := first_difference(first[1], own):
            raise UserError(f"{path}: not of one set with {first[0].name}: {found}; make the set again")
    return first[1] if first else {}


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)
