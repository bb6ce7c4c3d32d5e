"""Align a release with an older one: rotate refitted vectors onto the older ones.

PCA and pre-training choose other axes at each fit, so a refitted set has nearly the same cosines
between items and quite other vectors. An orthogonal map undoes that and changes no dot product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.codebooks import CENTROIDS, write_codebooks
from alignrec.pipeline.features.folder import ENCODER_FILE, MAX_SET_BYTES, Facts
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.rotation import fit_rotation, paired_cosines, rotate
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import rotated
from alignrec.pipeline.release.encoder import ENCODERS_FOLDER
from alignrec.pipeline.release.form import (
    FIT_DIGEST,
    KEEP_FORM,
    describe_form_change,
    read_fingerprint,
)
from alignrec.pipeline.release.manifest import AlignedVectors, Alignment, ChangedItem
from alignrec.pipeline.release.read import ITEMS_FILE, Release, codebooks_path
from alignrec.pipeline.release.rotated import ROTATION

# what stays at each fit; settings such as the width need not
KEPT = ("kind", "reads", "parts")
MAX_CHANGED_ITEMS = 10
PAIRS_PER_BLOCK = 8192
ALIGN_KEY = "publish.align"

SchemaOfWidth = Callable[[int], pa.Schema]


class CommonItems(NamedTuple):
    """Items of both releases, in the order of the new one."""

    asins: list[str]
    rows: np.ndarray  # int64 [n], in the new release
    older_rows: np.ndarray  # int64 [n]
    unchanged: np.ndarray  # bool [n], same text and image: the rotation is fitted to these


def align_release(folder: Path, older: Path, warn: Callable[[str], object]) -> Alignment:
    """Rotate the fitted feature sets and the recommender's vectors of a release that is written.

    Warns of sets of another form or width, which no rotation undoes. UserError if the older release
    is damaged, has another encoder under one of the names, or shares fewer unchanged items than a
    set has columns.
    """
    release = Release(older).refuse_without("items").verify()
    title = f"{release.manifest.dataset} {release.manifest.version}"
    common = _match_items(folder / ITEMS_FILE, older / ITEMS_FILE)
    aligned: dict[str, AlignedVectors] = {}

    for path in sorted((folder / "features").iterdir()):
        name = path.name
        older_shards = release.manifest.paths_of(older, "features", name)
        shards = io.shards(path, "features")
        if older_shards and _was_refitted(name, shards, older_shards):
            pair = io.map_features(path), io.map_features(older_shards[0].parent)
            changes = _describe_changes(shards, older_shards, pair)
            rotation, aligned[name] = _fit(name, *pair, common)
            digest = _rotate_encoder(folder / ENCODERS_FOLDER / name, rotation)
            for shard in shards:
                _rotate_table(shard, schemas.features, rotation, digest)
            _rotate_codebooks(folder / codebooks_path(name), rotation)
            if changes:
                warn(f"{name} has another form than in {title} ({changes}); {KEEP_FORM}")

    return Alignment(
        dataset=release.manifest.dataset,
        version=release.manifest.version,
        manifest=io.sha256(older / manifests.MANIFEST_FILE),
        sets=aligned,
        recommender=_align_recommender(folder, release, common),
    )


def _match_items(items: Path, older: Path) -> CommonItems:
    columns = ["asin", "input_text_sha256", "input_image_sha256"]
    tables = [io.read_table(path, schemas.RELEASED_ITEMS, columns) for path in (items, older)]
    asins, *hashes = (column.to_pylist() for column in tables[0].columns)
    older_asins, *older_hashes = (column.to_pylist() for column in tables[1].columns)
    older_row_of = {asin: row for row, asin in enumerate(older_asins)}

    rows = [row for row, asin in enumerate(asins) if asin in older_row_of]
    older_rows = [older_row_of[asins[row]] for row in rows]
    unchanged = np.ones(len(rows), bool)
    for column, older_column in zip(hashes, older_hashes, strict=True):
        is_equal = [
            column[row] == older_column[older_row]
            for row, older_row in zip(rows, older_rows, strict=True)
        ]
        unchanged &= np.array(is_equal, bool)
    return CommonItems(
        [asins[row] for row in rows], np.array(rows, int), np.array(older_rows, int), unchanged
    )


def _with_rows(common: CommonItems, rows: int, older_rows: int) -> CommonItems:
    """Return the items that are among the first rows of both releases: only items with interactions
    have vectors of the recommender.
    """
    kept = np.flatnonzero((common.rows < rows) & (common.older_rows < older_rows))
    return CommonItems(
        [common.asins[n] for n in kept],
        common.rows[kept],
        common.older_rows[kept],
        common.unchanged[kept],
    )


def _was_refitted(name: str, shards: Sequence[Path], older_shards: Sequence[Path]) -> bool:
    """Return whether two versions of a set differ in what is fitted to a catalogue.

    UserError if they differ in more, and their spaces cannot be compared.
    """
    fingerprint, older_fingerprint = map(read_fingerprint, (shards, older_shards))
    encoder = _without_fits(fingerprint)
    older_encoder = _without_fits(older_fingerprint)
    if difference := io.first_difference(older_encoder, encoder):
        raise UserError(
            f"'{ALIGN_KEY}': {name} is of another encoder there ({difference}); "
            "give it another name, or align an older release"
        )
    return fingerprint != older_fingerprint


def _describe_changes(
    shards: Sequence[Path], older_shards: Sequence[Path], pair: tuple[np.ndarray, np.ndarray]
) -> str:
    """Return how the form of a set differs from its older one, before both are padded."""
    width, older_width = (vectors.shape[1] for vectors in pair)
    changes = [describe_form_change(*map(read_fingerprint, (older_shards, shards)))]
    if width != older_width:
        changes.append(f"columns {older_width} -> {width}, the fewer padded with zeros")
    return ", ".join(filter(None, changes))


def _without_fits(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a fingerprint says of the encoder, without what fitting changes."""
    encoder = dict(fingerprint)
    if FIT_DIGEST in fingerprint:
        encoder = {key: value for key, value in fingerprint.items() if key in KEPT}
    parts = encoder.get("parts", {})
    encoder["parts"] = {name: _without_fits(part) for name, part in parts.items()}
    return encoder


def _fit(
    name: str, vectors: np.ndarray, older: np.ndarray, common: CommonItems
) -> tuple[np.ndarray, AlignedVectors]:
    """Return the rotation, float32 [F, W], of vectors [I, F] onto older ones, and its effect."""
    fitted_to = int(common.unchanged.sum())
    width = vectors.shape[1]
    older_width = older.shape[1]
    if fitted_to < max(width, older_width):
        raise UserError(
            f"'{ALIGN_KEY}': {fitted_to:,} items have the same text and image in both releases, "
            f"fewer than the {max(width, older_width):,} columns of {name}; publish without it"
        )

    def pairs(of: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(of), PAIRS_PER_BLOCK):
            block = of[start : start + PAIRS_PER_BLOCK]
            yield vectors[common.rows[block]], older[common.older_rows[block]]

    every = np.arange(len(common.rows))
    rotation = fit_rotation(pairs(np.flatnonzero(common.unchanged)), width, older_width)
    before = np.concatenate([paired_cosines(*pair) for pair in pairs(every)])
    after = np.concatenate(
        [paired_cosines(rotate(x, rotation), target) for x, target in pairs(every)]
    )

    changed = [
        ChangedItem(asin=common.asins[n], cosine=round(float(after[n]), 6))
        for n in np.argsort(after, kind="stable")[:MAX_CHANGED_ITEMS]
    ]
    achieved = AlignedVectors(
        items=fitted_to,
        cosine_before=round(float(np.median(before)), 6),
        cosine_after=round(float(np.median(after)), 6),
        changed=changed,
    )
    return rotation, achieved


def _rotate_table(path: Path, schema_of: SchemaOfWidth, rotation: np.ndarray, digest: str) -> None:
    """Rewrite a table with its column `vector` rotated.

    `digest` of the encoder's rotation goes into its fingerprint.
    """
    record = io.record(path)
    if record:  # imported files have none
        record[io.FINGERPRINT] = io.fingerprint_of(record) | {ROTATION: digest}

    def rotate_parts() -> Iterator[pa.Table]:
        for part in _read_parts(path, schema_of):
            vectors = io.vectors(rotate(io.matrix(part["vector"]), rotation))
            place = part.schema.get_field_index("vector")
            yield part.set_column(place, "vector", vectors)

    io.write_tables(rotate_parts(), path, schema_of(rotation.shape[1]), record)


def _read_parts(path: Path, schema_of: SchemaOfWidth) -> Iterator[pa.Table]:
    width = pq.read_schema(path).field("vector").type.list_size
    schema = schema_of(width)
    return io.read_slices(path, schema, schema.names, io.PART)


def _map_vectors(path: Path, schema_of: SchemaOfWidth) -> np.ndarray:
    """Return the vectors of a table, float32 [I, F], memory-mapped from an unlinked file."""
    parts = _read_parts(path, schema_of)
    return io.memory_map(io.matrix(part["vector"]) for part in parts)


def _rotate_encoder(folder: Path, rotation: np.ndarray) -> str:
    """Let a released encoder, if there is one, rotate its vectors too; return the digest.

    An encoder from an aligned release rotates already: its rotation is followed by this one.
    """
    path = folder / ENCODER_FILE
    if not path.is_file():
        return rotated.digest_rotation(rotation)

    facts = Facts.read(path, MAX_SET_BYTES)
    earlier = rotated.read_rotation(folder, facts)
    if earlier is not None:
        rotation = rotate(earlier, rotation)
    digest = rotated.digest_rotation(rotation)
    fingerprint = facts.fingerprint | {ROTATION: digest}
    facts = facts.model_copy(update={"fingerprint": fingerprint, "spans": []})
    io.write_json(path, facts.model_dump())
    rotated.write_rotation(folder, rotation)
    return digest


def _rotate_codebooks(path: Path, rotation: np.ndarray) -> None:
    """Let the codebooks of a set, if there are any, give rotated vectors the codes of the set."""
    if not path.is_file():
        return
    codebooks = load_file(path)[CENTROIDS]
    levels, codes, width = codebooks.shape
    turned = rotate(codebooks.reshape(-1, width), rotation)
    write_codebooks(path, turned.reshape(levels, codes, -1))


def _align_recommender(
    folder: Path, release: Release, common: CommonItems
) -> AlignedVectors | None:
    items = folder / "embeddings" / "items.parquet"
    older = release.folder / "embeddings" / "items.parquet"
    if not items.is_file() or "item_embeddings" not in release.tables:
        return None
    vectors, older_vectors = (
        _map_vectors(path, schemas.item_embeddings) for path in (items, older)
    )
    recommended = _with_rows(common, len(vectors), len(older_vectors))
    rotation, achieved = _fit("the recommender's vectors", vectors, older_vectors, recommended)
    digest = rotated.digest_rotation(rotation)

    users = folder / "embeddings" / "users.parquet"
    _rotate_table(items, schemas.item_embeddings, rotation, digest)
    if users.is_file():
        is_named = "user" in pq.read_schema(users).names
        schema_of = schemas.user_embeddings if is_named else schemas.numbered_user_embeddings
        _rotate_table(users, schema_of, rotation, digest)
    rotated.rotate_index(folder / "embeddings", rotation)
    return achieved
