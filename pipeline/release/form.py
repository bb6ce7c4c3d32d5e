"""The form of a fitted set: what validation chose, such as the power and weight of `linear`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import one_line

FIT_DIGEST = "weights"  # key of a fingerprint if the set is fitted to its catalogue
KEEP_FORM = "an encoder of kind released would keep that one"
MAX_VALUE_CHARACTERS = 40  # of an untrusted fingerprint


def read_fingerprint(shards: Sequence[Path]) -> dict[str, Any]:
    """Return the fingerprint of a feature set; UserError if its files are not of one set."""
    return io.common_fingerprint((path, io.record(path)) for path in shards)


def describe_form_change(older: Mapping[str, Any], newer: Mapping[str, Any]) -> str:
    """Return the settings of a fitted set that differ, by its fingerprints; empty if none do."""
    if FIT_DIGEST not in older or FIT_DIGEST not in newer:
        return ""

    changes = []
    for key, value in newer.items():
        is_setting = isinstance(value, int | float)  # digests, kinds and parts are not
        if is_setting and key in older and older[key] != value:
            before, after = (
                one_line(repr(side[key]), MAX_VALUE_CHARACTERS) for side in (older, newer)
            )
            changes.append(f"{key} {before} -> {after}")
    return ", ".join(changes)
