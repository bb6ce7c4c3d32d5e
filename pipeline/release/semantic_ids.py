"""Semantic IDs in a release: semantic_ids/<feature set>/<method>/ has codes, codebooks, and what made them.

These files are untrusted: `faults` compares them with each other and with the feature set that they code.
n coded items, L levels, K codes a level.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.config.base import nearest
from pipeline.errors import UserError, one_line
from pipeline.ops.rows import unit_rows
from pipeline.release import manifest as manifests
from pipeline.release.manifest import SEMANTIC_IDS, Manifest
from pipeline.semantic_ids import files
from pipeline.semantic_ids.base import Method
from pipeline.semantic_ids.registry import METHODS

NONE = -1
"""in place of every code of a vector without a direction"""


def names(manifest: Manifest) -> list[tuple[str, str]]:
    tables = [PurePosixPath(f.path).parent for f in manifest.files if f.table == "semantic_ids"]
    return sorted((path.parent.name, path.name) for path in tables)


def folder_of(release: Path, manifest: Manifest, features: str, method: str | None) -> Path:
    """Return the folder of a feature set's semantic IDs, of the only method if None; UserError names what there is."""
    methods = [own for name, own in names(manifest) if name == features]
    if not methods:
        coded = sorted({name for name, _ in names(manifest)})
        raise UserError(f"{release}: no semantic IDs of '{features}'; there are {', '.join(coded) or 'none'}")
    if method is None and len(methods) > 1:
        raise UserError(f"{release}: several semantic IDs of '{features}'; choose one: {', '.join(methods)}")
    if method not in (None, *methods):
        raise UserError(f"{release}: no semantic IDs of '{features}' by '{method}'{nearest(str(method), methods)}")
    return release / SEMANTIC_IDS / features / (method or methods[0])


def load(release: Path, features: str, method: str) -> files.Coded:
    coded = files.load(folder_of(release, manifests.load(release), features, method))
    if METHODS[coded.facts.method].control:
        raise UserError(f"{release}: '{method}' is a control, whose codes say nothing of new items; choose another")
    return coded


def encoded(method: Method, x: np.ndarray, levels: int) -> np.ndarray:
    """Return the codes of vectors of any length, float32 [N, F] -> int32 [N, L]; NONE for those without a direction."""
    units, directed = unit_rows(x)
    codes = np.full((len(x), levels), NONE, np.int32)
    if directed.any():
        codes[directed] = method.encode(units[directed])
    return codes


def cosines(method: Method, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the cosine of vectors and what their codes decode to, float32 [N]; zero for those without codes."""
    found, there = np.zeros(len(x), np.float32), codes[:, 0] != NONE
    if there.any():
        decoded = unit_rows(method.decode(codes[there]))[0]
        found[there] = np.einsum("nf,nf->n", unit_rows(x[there])[0], decoded)
    return found


def column(codes: np.ndarray) -> pa.FixedSizeListArray:
    """Return codes as a column, int32 [N, L]; null for NONE."""
    there = codes[:, 0] != NONE
    flat = pa.array(np.where(there[:, None], codes, 0).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.codes(codes.shape[1]), mask=pa.array(~there))


def faults(release: Path, manifest: Manifest) -> list[str]:
    """Return the faults of all semantic IDs of a release, whose tables keep their schemas, one line each.

    Codes are 0 .. K-1, unique as far as the policy promises, and made from the released feature set; codebooks are
    finite and of the shape in codes.json. They are not tried where the method's dependencies are absent.
    """
    present, found = defaultdict[tuple[str, str], set[str]](set), []
    for file in manifest.files:
        top, *below = file.path.split("/")
        if top != SEMANTIC_IDS and file.table != "semantic_ids":
            continue
        if top != SEMANTIC_IDS or len(below) != 3 or below[2] not in files.NAMES:
            found.append(f"{file.path}: is no file of semantic IDs")
        elif (file.table == "semantic_ids") != (below[2] == files.IDS):
            found.append(f"{file.path}: is listed as another kind of table")
        else:
            present[below[0], below[1]].add(below[2])
    for (features, method), there in present.items():
        where = f"{SEMANTIC_IDS}/{features}/{method}"
        found += [f"{where}: has no {name}" for name in files.NAMES if name not in there]
    for features, method in () if found else present:
        try:
            if fault := _fault(release, manifest, features, method):
                found.append(f"{SEMANTIC_IDS}/{features}/{method}: {fault}")
        except UserError as e:
            found.append(str(e).removeprefix(f"{release}/"))
    return found


def _fault(release: Path, manifest: Manifest, features: str, method: str) -> str:
    folder = release / SEMANTIC_IDS / features / method
    facts = files.facts(folder)
    if (facts.features, facts.method) != (features, method):
        return f"codes.json is of {one_line(repr(facts.features), 64)} by {one_line(repr(facts.method), 64)}"
    shards = {f.path: f.sha256 for f in manifest.files if (f.table, f.feature_set) == ("features", features)}
    if not shards:
        return "its feature set is not in the release"
    source = "".join(f"{PurePosixPath(path).name} {shards[path]}\n" for path in sorted(shards))
    if hashlib.sha256(source.encode()).hexdigest() != facts.features_sha256:
        return "was made from other vectors than the released ones; run `alignrec semantic_ids` again"
    width = pq.read_schema(release / min(shards)).field("vector").type.list_size
    if width != facts.width:
        return f"codes.json says {facts.width} numbers a vector, the feature set has {width}"
    levels = pq.read_schema(folder / files.IDS).field("codes").type.list_size
    if levels != facts.levels:
        return f"{levels} codes an item, codes.json says {facts.levels}"
    if fault := id_fault(io.read_slices(folder / files.IDS, schemas.semantic_ids(levels), None, io.PART), facts):
        return fault
    files.check_codebooks(folder, facts)
    return ""


def id_fault(tables: Iterable[pa.Table], facts: files.Facts) -> str:
    """Return the first fault of the parts of a table of semantic IDs, schema semantic_ids(L); empty if there is none.

    Of an item its codes are held, 2 L bytes, and its suffix.
    """
    first, coded, kept = 0, list[np.ndarray](), list[list[np.ndarray]]()
    for table in tables:
        rows, codes = files.matrix(table)
        if fault := _row_fault(table, rows, codes, facts, first):
            return fault
        suffix = [table["suffix"].drop_null().to_numpy()] if facts.collisions == "suffix" else []
        kept.append([*codes.T.astype(np.uint16), *suffix])
        coded.append(first + rows)
        first += len(table)
    if facts.collisions == "keep" or not sum(map(len, coded)):
        return ""
    columns = [np.concatenate(column) for column in zip(*kept, strict=True)]
    twice = _repeated(columns, facts.codes if facts.collisions == "reassign" else None)
    if twice is None:
        return ""
    return f"row {np.concatenate(coded)[twice]}: the same ID as an earlier item, against policy '{facts.collisions}'"


def _row_fault(table: pa.Table, rows: np.ndarray, codes: np.ndarray, facts: files.Facts, first: int) -> str:
    coded = np.zeros(len(table), bool)
    coded[rows] = True
    expected = {
        "status": (pc.equal(table["status"], "coded").to_numpy(), coded),
        "suffix": (table["suffix"].is_valid().to_numpy(), coded & (facts.collisions == "suffix")),
    }
    for column, (is_there, should) in expected.items():
        if (wrong := np.flatnonzero(is_there != should)).size:
            return f"row {first + wrong[0]}: column '{column}' does not agree with codes and policy"
    outside = np.flatnonzero(((codes < 0) | (codes >= facts.codes)).any(axis=1))
    if outside.size:
        at = outside[0]
        return f"row {first + rows[at]}: codes {codes[at].tolist()}, expected 0 .. {facts.codes - 1}"
    return ""


def _repeated(columns: Sequence[np.ndarray], k: int | None) -> int | None:
    """Return the first of n rows, given by columns [n], that equals an earlier one.

    With `k`, rows may be equal where all k values of the last column occur with those of the others.
    """
    order = np.lexsort(columns[::-1])
    changes = [np.append(True, np.diff(column[order]) != 0) for column in columns]
    new, prefix = np.logical_or.reduce(changes), np.logical_or.reduce([*changes[:-1], np.zeros(len(order), bool)])
    prefix[0] = True
    twice = ~new
    if k is not None:
        group = np.cumsum(prefix) - 1
        twice &= np.bincount(group, new)[group] < k
    return int(order[twice].min()) if twice.any() else None
