"""Checks a release folder against its manifest: offline, without torch, reading each file once or twice."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline import io
from pipeline.errors import UserError
from pipeline.probe import stored
from pipeline.release import encoder, semantic_ids, signature, tables
from pipeline.release import manifest as manifests
from pipeline.release.manifest import File, Manifest

MAX_LISTED = 5

PROBES = "probes.json"
TOOLS = (".git", ".gitattributes", ".cache")
"""what Git and the Hub's client leave at the top of a download; not part of a release"""


def verify(folder: Path, key: Path | None = None, known: Manifest | None = None) -> Iterator[str]:
    """Check a release folder, yielding a line for each check that passed.

    In order: the signature, if there is one; the manifest's schema and paths; that the folder holds its files and no
    other; their sizes and hashes; the tables' schemas, columns and rows; ids across tables; codes against codebooks
    and feature sets; what the manifest says of encoders, weights and makers.

    Args:
        key: public key that must have signed it.
        known: manifest of a verified release; if this one's is equal, the content of its files is not checked again.

    Raises:
        UserError: names the first bad files and their faults.
    """
    folder = Path(folder)
    raw = manifests.read(folder)
    signed = signature.check(folder, raw, key)
    manifest = manifests.parsed(folder, raw)
    yield f"{folder}: {manifest.dataset} {manifest.version}, {len(manifest.files)} files"
    _refuse("not as the manifest lists them", _strays(folder, manifest))
    refuse_damaged(folder, manifest.files)
    total = sum(f.bytes for f in manifest.files)
    yield f"bytes and sha256 of every file agree ({total:,} bytes)"
    if manifest != known:
        _refuse("not what the schemas say", _faults(folder, manifest))
    counts = f"{manifest.counts.items:,} items, {manifest.counts.users:,} users"
    yield f"{sum(f.table is not None for f in manifest.files)} tables keep their schemas; ids agree ({counts})"
    if signed:
        yield signed
    yield f"release {hashlib.sha256(raw).hexdigest()}"


def _faults(folder: Path, manifest: Manifest) -> list[str]:
    faults = tables.faults(folder, manifest) or list(_mixed(folder, manifest))
    faults = faults or semantic_ids.faults(folder, manifest) or list(claim_faults(folder, manifest))
    return faults or [*encoder.faults(folder, manifest), *_probe_faults(folder, manifest)]


def _refuse(what: str, faults: list[str]) -> None:
    if faults:
        more = f"; and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise UserError(f"release is {what}: {'; '.join(faults[:MAX_LISTED])}{more}")


def _strays(folder: Path, manifest: Manifest) -> list[str]:
    listed = {f.path for f in manifest.files} | {manifests.NAME}
    present: set[str] = set()
    faults = []
    for at, names, files in os.walk(folder):
        here = Path(at)
        if here == folder:
            names[:] = [n for n in names if n not in TOOLS]
            files = [f for f in files if f not in (*TOOLS, signature.NAME) or (here / f).is_symlink()]
        for name in sorted(names + files):
            path = here / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                faults.append(f"{relative}: neither file nor folder")
                present.add(relative)
            elif path.is_file():
                present.add(relative)
    faults += [f"{name}: missing" for name in sorted(listed - present)]
    return faults + [f"{name}: not in the manifest" for name in sorted(present - listed)]


def refuse_damaged(folder: Path, files: Iterable[File]) -> None:
    _refuse("damaged", [*_damaged(folder, files)])


def _damaged(folder: Path, files: Iterable[File]) -> Iterator[str]:
    for file in files:
        path = folder / file.path
        if not path.is_file():
            yield f"{file.path}: missing"
        elif (size := path.stat().st_size) != file.bytes:
            yield f"{file.path}: {size} bytes, expected {file.bytes}"
        elif io.sha256(path) != file.sha256:
            yield f"{file.path}: changed, its sha256 is another"


def _mixed(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the sets of vectors, of features or of the recommender, whose files differ in fingerprint."""
    sets = defaultdict[str, list[Path]](list)
    for file in manifest.files:
        if file.table in ("features", "item_embeddings", *manifests.USER_VECTORS):
            sets[file.path.rpartition("/")[0]].append(folder / file.path)
    for paths in sets.values():
        try:
            io.one_set(paths)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")


def _probe_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    if PROBES in {f.path for f in manifest.files}:
        try:
            stored.read(folder / PROBES)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")


def claim_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield where `used_by`, `weights` and `made_by` differ from what the listed files say.

    A part of a release may lack files that these fields name.
    """
    try:
        needed = _needed(folder, manifest)
    except (UserError, AttributeError) as e:
        yield f"{encoder.NAME}: {e}"
        return
    for file in manifest.files:
        expected, stated = needed.get(file.path, set()), set(file.used_by)
        if not (expected <= stated if manifest.part_of else expected == stated):
            yield f"{file.path}: used_by differs from {encoder.FOLDER}/"
    for weight in manifest.weights:
        twins = [f for f in manifest.files if _is_of_encoder(f) and PurePosixPath(f.path).name == weight.name]
        if twins and weight.sha256 not in {f.sha256 for f in twins}:
            yield f"{twins[0].path}: differs from the file in weights"
    yield from [] if manifest.part_of else _maker_faults(folder, manifest)


def _needed(folder: Path, manifest: Manifest) -> dict[str, set[str]]:
    """Return path -> feature sets whose encoder needs it: its own, and those that share its network or use it."""
    own, shared, chains = (defaultdict[str, Any](kind) for kind in (list, set, set))
    for file in filter(_is_of_encoder, manifest.files):
        name = file.path.split("/")[1]
        own[name].append(file.path)
        if file.path.endswith(f"/{encoder.NAME}"):
            facts = io.read_json(folder / file.path, encoder.LARGEST_FACTS)
            shared[str(facts.get("weights"))].add(name)
            parts = facts.get("parts")
            for part in parts if isinstance(parts, list) else []:
                chains[str(part)].add(name)
    of_weights = {name: shared[name].union(*(chains[one] for one in shared[name])) for name in own}
    return {
        path: {name} | chains[name] | (set() if path.endswith(f"/{encoder.NAME}") else of_weights[name])
        for name, paths in own.items()
        for path in paths
    }


def _is_of_encoder(file: File) -> bool:
    return file.path.startswith(f"{encoder.FOLDER}/") and file.path.count("/") > 1


def _maker_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    records = defaultdict[str, list[tuple[Any, Any]]](list)
    for file in manifest.files:
        if file.table is not None:
            try:
                record = io.record(folder / file.path)
            except (ValueError, TypeError, RecursionError):
                record = {}
            records[str(record.get("stage"))].append((record.get("params"), record.get("versions")))
    for stage, maker in manifest.made_by.items():
        if records[stage] and (maker.params, maker.versions) not in records[stage]:
            yield f"made_by.{stage}: no table of the release records these parameters and versions"
