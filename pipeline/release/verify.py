"""Checks a release folder against its manifest: offline, without torch, reading each file once or twice."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.probe import stored
from pipeline.release import encoder, semantic_ids, signature
from pipeline.release import manifest as manifests
from pipeline.release.manifest import File, Manifest

MAX_LISTED = 5

SMALL, EXPANSION = 1 << 30, 10_000
"""bytes of memory that any table may take, and the largest ratio to its size on disk of a larger one; equal vectors
have a few hundred"""
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
    tables = [f for f in manifest.files if f.table is not None]
    if manifest != known:
        _refuse("not what the schemas say", _faults(folder, manifest, tables))
    counts = f"{manifest.counts.items:,} items, {manifest.counts.users:,} users"
    yield f"{len(tables)} tables keep their schemas; ids agree ({counts})"
    if signed:
        yield signed
    yield f"release {hashlib.sha256(raw).hexdigest()}"


def _faults(folder: Path, manifest: Manifest, tables: list[File]) -> list[str]:
    ids = defaultdict[str, list[pa.Table]](list)
    faults = [f"{f.path}: {fault}" for f in tables for fault in _table_faults(folder, f, manifest, ids)]
    faults = faults or _id_faults(manifest, ids) or _blank_faults(folder, manifest)
    faults = faults or [fault for f in tables if f.table == "edges" for fault in _edge_faults(folder, f, manifest)]
    faults = faults or list(_mixed(folder, manifest))
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


def _table_faults(folder: Path, file: File, manifest: Manifest, ids: dict[str, list[pa.Table]]) -> list[str]:
    """Return the faults of one table, and add its ids to `ids`, by folder of a feature set or by file."""
    path = folder / file.path
    try:
        if manifests.shape(path) != (file.rows, file.columns):
            return ["rows or columns are not as the manifest says"]
        fields = pq.read_schema(path)
        widths = [f.type.list_size for f in fields if pa.types.is_fixed_size_list(f.type)]
        memory = 4 * int(file.rows or 0) * (len(fields) + sum(widths))
        if memory > max(SMALL, EXPANSION * file.bytes):
            return [f"takes {memory:,} bytes of memory, from {file.bytes:,} on disk"]
        schema = manifests.TABLES[str(file.table)](widths[0] if widths else 1)
        table = io.read_table(path, schema)
        table.validate(full=True)  # text that is no UTF-8, lists that reach beyond their values
    except (UserError, schemas.ContractError, pa.ArrowException, OSError, ValueError, KeyError) as e:
        fault = str(e).removeprefix(f"{path}").removeprefix(":").removesuffix("; make it first")
        return [" ".join(fault.split())]  # Arrow's have several lines
    if file.table in ("edges", "interactions"):
        return _reference_faults(table, manifest, str(file.table))
    if file.table == "tried":
        return []
    numbered = file.path.rpartition("/")[0] if file.table in ("features", "features_half") else file.path
    names = ["user_id", "user"] if file.table in ("users", *manifests.USER_VECTORS) else ["item_id", "asin"]
    names = [name for name in names if name in schema.names]
    ids[numbered].append(table.select(names).replace_schema_metadata())
    return []


def _reference_faults(table: pa.Table, manifest: Manifest, kind: str) -> list[str]:
    counts = manifest.counts
    if kind == "interactions" and len(table) != counts.interactions:
        return [f"{len(table)} rows, expected {counts.interactions}"]
    known = {"item_id": ("item", counts.items)}
    known |= {"neighbour_id": ("item", counts.items)} if kind == "edges" else {"user_id": ("user", counts.users)}
    for column, (what, count) in known.items():
        wrong = np.flatnonzero(table[column].to_numpy() >= count)
        if wrong.size:
            return [f"row {wrong[0]}: {column} {table[column][int(wrong[0])]} is no {what}"]
    return []


def _edge_faults(folder: Path, file: File, manifest: Manifest) -> list[str]:
    items, edges = manifest.counts.items, pq.read_table(folder / file.path, columns=["item_id", "neighbour_id"])
    ends = edges["item_id"].to_numpy().astype(np.int64) * items + edges["neighbour_id"].to_numpy()
    _, first = np.unique(ends, return_index=True)
    if len(first) < len(ends):
        row = int(np.setdiff1d(np.arange(len(ends)), first)[0])
        return [f"{file.path}, row {row}: the edge from {ends[row] // items} to {ends[row] % items} is there twice"]
    present = np.unique(edges["item_id"].to_numpy())  # memory grows with the edges, not with what the manifest counts
    if len(present) == items:
        return []
    gaps = np.flatnonzero(present != np.arange(len(present)))
    return [f"{file.path}: no edge of item {gaps[0] if gaps.size else len(present)}, not even to itself"]


def _blank_faults(folder: Path, manifest: Manifest) -> list[str]:
    has_vectors = defaultdict[str, bool](bool)
    for file in manifest.files:
        if file.table == "features":
            has_vectors[str(file.feature_set)] |= _has_vectors(folder / file.path)
    blank = [name for name, there in has_vectors.items() if not there]
    return [f"features/{name}: every vector is zero; leave it out of publish.features" for name in blank]


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


def _has_vectors(path: Path) -> bool:
    return bool(io.matrix(pq.read_table(path, columns=["vector"])["vector"]).any())


def _probe_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    if PROBES in {f.path for f in manifest.files}:
        try:
            stored.read(folder / PROBES)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")


def _id_faults(manifest: Manifest, ids: dict[str, list[pa.Table]]) -> list[str]:
    first: dict[str, pa.ChunkedArray] = {}
    faults = []
    for where, tables in ids.items():
        table = pa.concat_tables(tables)
        key, name = table.column_names[0], table.column_names[-1]  # where users have no names, both are the number
        expected = manifest.counts.users if key == "user_id" else manifest.counts.items
        numbers = table[key].to_numpy()
        names = first.setdefault(name, table[name])
        if len(numbers) != expected:
            faults.append(f"{where}: {len(numbers)} rows, expected {expected}")
        elif (wrong := np.flatnonzero(numbers != np.arange(expected))).size:
            faults.append(f"{where}, row {wrong[0]}: {key} {numbers[wrong[0]]}, expected {wrong[0]}")
        elif not names.equals(table[name]):
            row = pc.index(pc.equal(names, table[name]), False).as_py()
            faults.append(f"{where}, row {row}: {name} {table[name][row].as_py()!r}, elsewhere {names[row].as_py()!r}")
        elif len(counts := names.value_counts()) < expected:
            twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
            faults.append(f"{where}: {name} {twice!r} is there twice")
    return faults


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
