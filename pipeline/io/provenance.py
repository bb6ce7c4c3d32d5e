"""Provenance of Parquet files, JSON in their metadata, and which are of one vector space."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from alignrec.pipeline.io import files
from alignrec.pipeline.io.errors import UserError, one_line

# key of the provenance that identifies a file's vector space: kind, settings, model, prompt,
# weights, image size
FINGERPRINT = "fingerprint"
MAX_SHOWN_FINGERPRINT_CHARACTERS = 40  # of a fingerprint's value in messages
MAX_FINGERPRINT_LEVELS = 16  # of nesting


def record(path: Path) -> dict[str, Any]:
    """Return the provenance of a file; empty for a third-party file without one."""
    try:
        metadata = pq.read_schema(files.require_plain(path)).metadata or {}
        return dict(json.loads(metadata.get(b"alignrec", b"{}")))
    except (ValueError, TypeError, RecursionError):
        return {}


def require_same_space(paths: Sequence[Path]) -> Sequence[Path]:
    common_fingerprint((path, record(path)) for path in paths)
    return paths


# Vectors with different fingerprints never form one set, even if equally wide. Third-party files
# have none: accepted.
def common_fingerprint(records: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    first_path: Path | None = None
    common: dict[str, Any] = {}
    for path, record in records:
        fingerprint = fingerprint_of(record)
        if not fingerprint:
            continue
        if first_path is None:
            first_path = path
            common = fingerprint
        elif difference := first_difference(common, fingerprint):
            raise UserError(
                f"{path}: not of one set with {first_path.name}: {difference}; make the set again"
            )
    return common


def fingerprint_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of an untrusted record.

    Empty if it is missing or nested too deeply.
    """
    fingerprint = record.get(FINGERPRINT)
    if isinstance(fingerprint, dict) and _is_shallow(fingerprint, MAX_FINGERPRINT_LEVELS):
        return fingerprint
    return {}


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in inner)


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> str:
    for key in a:
        if key not in b or a[key] == b[key]:
            continue
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            place = within if key == "parts" else f"{within}{key}: "
            if difference := first_difference(a[key], b[key], place):
                return difference
        else:
            place = one_line(within + key, MAX_SHOWN_FINGERPRINT_CHARACTERS)
            values = [
                one_line(repr(side[key]), MAX_SHOWN_FINGERPRINT_CHARACTERS) for side in (a, b)
            ]
            return f"{place} {' and '.join(values)}"
    return ""
