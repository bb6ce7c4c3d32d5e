"""Verify a release folder against its manifest, offline and without torch."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.probe import stored
from alignrec.pipeline.release import encoder, signature, tables
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import File, Manifest

MAX_LISTED = 5

PROBES = "probes.json"
# left in the top folder by Git and the Hub's client; not part of a release
TOOLS = (".git", ".gitattributes", ".cache")


def verify(folder: Path, key: Path | None = None) -> list[str]:
    """Verify a release folder, and its signature by `key` if given; return a line per check.

    Checks signature, manifest, files present, sizes and hashes, tables, encoders and probes, in this order; UserError
    lists the faults of the first that fails, at most MAX_LISTED.
    """
    folder = Path(folder)
    raw = manifests.read(folder)
    signed = signature.check(folder, raw, key)
    manifest = manifests.parse(folder, raw)
    _refuse_faults("not as the manifest lists them", _stray_files(folder, manifest))
    refuse_damaged(folder, manifest.files)
    for check in (tables.find_faults, _mixed_sets, encoder.find_faults, _probe_faults):
        _refuse_faults("not what the schemas say", [*check(folder, manifest)])
    total, counts = sum(f.bytes for f in manifest.files), manifest.counts
    return [
        f"{folder}: {manifest.dataset} {manifest.version}, {len(manifest.files)} files",
        f"bytes and sha256 of every file agree ({total:,} bytes)",
        f"{sum(f.table is not None for f in manifest.files)} tables keep their schemas; ids agree "
        f"({counts.items:,} items, {counts.users:,} users)",
        *([signed] if signed else []),
        f"release {hashlib.sha256(raw).hexdigest()}",
    ]


def _refuse_faults(what: str, faults: list[str]) -> None:
    if faults:
        raise UserError(f"release is {what}: {join_faults(faults)}")


def join_faults(faults: list[str]) -> str:
    more = [f"and {len(faults) - MAX_LISTED} more"] * (len(faults) > MAX_LISTED)
    return "; ".join([*faults[:MAX_LISTED], *more])


def _stray_files(folder: Path, manifest: Manifest) -> list[str]:
    listed, present, faults = {f.path for f in manifest.files} | {manifests.NAME}, set[str](), list[str]()
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
            if path.is_symlink() or not path.is_dir():
                present.add(relative)
    faults += [f"{name}: missing" for name in sorted(listed - present)]
    return faults + [f"{name}: not in the manifest" for name in sorted(present - listed)]


def refuse_damaged(folder: Path, files: Iterable[File]) -> None:
    _refuse_faults("damaged", [*_damaged_files(folder, files)])


def _damaged_files(folder: Path, files: Iterable[File]) -> Iterator[str]:
    for file in files:
        path = folder / file.path
        if not path.is_file():
            yield f"{file.path}: missing"
        elif (size := path.stat().st_size) != file.bytes:
            yield f"{file.path}: {size} bytes, expected {file.bytes}"
        elif io.sha256(path) != file.sha256:
            yield f"{file.path}: changed, its sha256 is another"


def _mixed_sets(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield sets of vectors whose files differ in fingerprint."""
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
            stored.read_probes(folder / PROBES)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")
