"""Fingerprint of a feature set's vector space (kind, settings, model, prompt, weights, image size), in each shard."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignrec.pipeline.io.errors import UserError, one_line

KEY = "fingerprint"  # in a file's provenance record
SHOWN = 40  # characters of a value shown in messages
DEEPEST = 16  # nesting levels
Fingerprint = Mapping[str, Any]


def fingerprint_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of an untrusted record; empty if it is missing or nested too deeply."""
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


# Vectors with different fingerprints never form one set, even if equally wide. Third-party files have none, and pass.
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
