"""Records of finished stages, run.json: what was made from what, and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout


def record_digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def intact_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a stage's folder; None if it is missing or was edited."""
    try:
        record = json.loads(io.read_plain(folder / io.RECORD))
        digest = record.pop("sha256")
        is_intact = isinstance(record["files"], dict) and digest == record_digest(record)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_intact else None


def quoted_record(layout: Layout, stage: str, item: str = "") -> dict[str, Any]:
    """Return a stage's run.json; UserError if it was edited."""
    record = intact_record(layout.out(stage, item))
    if record is None:
        command = " ".join(filter(None, ("alignrec", stage, layout.dataset, item)))
        path = layout.run_record(stage, item)
        raise UserError(f"{path} was edited; run `{command}`, which makes it again")
    return record


def present_files(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of a stage's files, without its record, hidden files and signatures."""
    files = io.files_below(folder)
    names = [str(path.relative_to(folder)) for path in files]
    return dict(zip(names, io.sha256s(files), strict=True))
