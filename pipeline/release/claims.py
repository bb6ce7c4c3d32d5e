"""What a manifest says of a release's files beside their bytes, held to what those files say themselves."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from pipeline import io
from pipeline.errors import UserError
from pipeline.release.manifest import File, Manifest

ENCODERS, FACTS = "encoders", "encoder.json"


def faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the faults of `used_by`, `weights` and `made_by`, one line each; the files are those that are listed.

    A part of a release lacks files that these fields speak of; what it has must be among them.
    """
    try:
        needed = _needed(folder, manifest)
    except (UserError, AttributeError) as e:
        yield f"{FACTS}: {e}"
        return
    for file in manifest.files:
        expected, stated = needed.get(file.path, set()), set(file.used_by)
        if not (expected <= stated if manifest.part_of else expected == stated):
            yield f"{file.path}: used_by is not what {ENCODERS}/ says"
    for weight in manifest.weights:
        twins = [f for f in manifest.files if _is_of_encoder(f) and PurePosixPath(f.path).name == weight.name]
        if twins and weight.sha256 not in {f.sha256 for f in twins}:
            yield f"{twins[0].path}: is not the one that weights lists"
    yield from [] if manifest.part_of else _maker_faults(folder, manifest)


def _needed(folder: Path, manifest: Manifest) -> dict[str, set[str]]:
    """Return path -> feature sets whose encoder needs it: its own, and those that share its network."""
    own, shared = defaultdict[str, list[str]](list), defaultdict[str, set[str]](set)
    for file in filter(_is_of_encoder, manifest.files):
        name = file.path.split("/")[1]
        own[name].append(file.path)
        if file.path.endswith(f"/{FACTS}"):
            shared[str(io.read_json(folder / file.path).get("weights"))].add(name)
    return {
        path: {name} | (set() if path.endswith(f"/{FACTS}") else shared[name])
        for name, paths in own.items()
        for path in paths
    }


def _is_of_encoder(file: File) -> bool:
    return file.path.startswith(f"{ENCODERS}/") and file.path.count("/") > 1


def _maker_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the stages whose parameters or versions no table of theirs records, where the release has one."""
    records = defaultdict[str, list[tuple[Any, Any]]](list)
    for file in manifest.files:
        if file.table is not None:
            record = _record(folder / file.path)
            records[str(record.get("stage"))].append((record.get("params"), record.get("versions")))
    for stage, maker in manifest.made_by.items():
        if records[stage] and (maker.params, maker.versions) not in records[stage]:
            yield f"made_by.{stage}: no table of the release says that it was made so"


def _record(path: Path) -> dict[str, Any]:
    """Return what a table says of how it was made; empty if nothing that can be read."""
    try:
        record = json.loads((pq.read_schema(path).metadata or {}).get(b"alignrec", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
