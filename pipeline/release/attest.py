"""Recompute rows of a release, and compare texts and images by SHA-256, vectors by cosine."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.linalg.projections import paired_cosines
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.encoder import (
    ReleasedEncoders,
    encode_items,
    image_sha256,
    text_sha256,
)
from alignrec.pipeline.release.item_file import ItemRow, read_blocks
from alignrec.pipeline.release.item_images import FoundImage
from alignrec.pipeline.release.item_table import open_table, release_recipe
from alignrec.pipeline.release.loading import Loaded
from alignrec.pipeline.release.read import ITEMS_FILE
from alignrec.pipeline.runtime.layout import Layout, list_image_files
from alignrec.pipeline.runtime.seeds import seed_for

# between released and recomputed vectors; other hardware or batch sizes change only the last bits
MIN_COSINE = 0.999
ATTEST_BLOCK_ITEMS = 1024
COMPARED_PARTS = ("text", "image", "vector")  # of an item, which are compared
AGREEMENT = {True: "agrees", False: "DIFFERS"}


class AttestedRow(NamedTuple):
    """An item, and whether its text and image are those of the release."""

    asin: str
    text: bool
    image: bool
    cosines: Mapping[str, float]  # feature set -> of the released and the recomputed vector

    @property
    def differing(self) -> list[str]:
        agrees = (self.text, self.image, min(self.cosines.values()) >= MIN_COSINE)
        return [part for part, agreeing in zip(COMPARED_PARTS, agrees, strict=True) if not agreeing]

    def describe(self) -> str:
        parts = [f"text {AGREEMENT[self.text]}", f"image {AGREEMENT[self.image]}"]
        for name, cosine in self.cosines.items():
            parts.append(f"{name} {AGREEMENT[cosine >= MIN_COSINE]} (cosine {cosine:.5f})")
        return printable(f"{self.asin}: {', '.join(parts)}")


class Attestation(NamedTuple):
    """Outcome for a release."""

    rows: list[AttestedRow]
    items: int  # of the release
    covered: int  # of them in the data
    unattested: list[str]  # feature sets without an encoder

    @property
    def agrees(self) -> bool:
        return not any(row.differing for row in self.rows)


class AttestInputs(NamedTuple):
    """Items from which rows are recomputed."""

    asins: set[str]  # of all items
    read: Callable[[set[str]], Iterable[ItemRow]]  # reads some of them


def open_inputs(data: str, images: Path | None, root: Path, release: Path) -> AttestInputs:
    """Open a file of items with its image folder, or a dataset; UserError if it is neither."""
    if Path(data).is_file():
        return _open_table(Path(data), images, release)
    layout = Layout(root, data)
    if Path(data).name != data or not layout.items.is_file():
        raise UserError(f"'{data}': neither a file of items nor a dataset with items under {root}")
    return open_dataset(layout)


def _open_table(path: Path, images: Path | None, release: Path) -> AttestInputs:
    recipe = release_recipe(manifests.load(release))
    table = open_table(path, images, recipe=recipe)

    def read_all() -> Iterator[ItemRow]:
        for rows, _ in read_blocks(table):
            yield from rows

    def read(asins: set[str]) -> Iterator[ItemRow]:
        return (row for row in read_all() if row.asin in asins)

    return AttestInputs({row.asin for row in read_all()}, read)


def open_dataset(layout: Layout) -> AttestInputs:
    def read(asins: set[str]) -> Iterator[ItemRow]:
        images: dict[str, FoundImage] = {}
        for path in list_image_files(layout.images):
            for asin, image in _select_rows(path, asins, "image"):
                images[asin] = FoundImage(image, "ok")
        for table in tables:
            for asin, text in _select_rows(table, asins, "text"):
                yield ItemRow(asin, text, images.get(asin))

    tables = [path for path in (layout.items, layout.further_items) if path.is_file()]
    names = [io.read_table(path, schemas.ITEMS, ["asin"])["asin"].to_pylist() for path in tables]
    return AttestInputs({asin for part in names for asin in part}, read)


def _select_rows(path: Path, asins: set[str], column: str) -> Iterator[tuple[str, Any]]:
    selected = [("asin", "in", asins)]
    columns = ["asin", column]
    table = pq.read_table(path, columns=columns, filters=selected, partitioning=None)
    return zip(table["asin"].to_pylist(), table[column].to_pylist(), strict=True)


def attest(
    release: Path, inputs: AttestInputs, sample: int, names: Sequence[str] = ()
) -> Attestation:
    """Recompute up to `sample` rows of a verified release that `inputs` covers, and compare them.

    Equal inputs give equal rows. UserError if the release has no encoder (of `names`, by default
    all), or no item in common with the data.
    """
    encoders = ReleasedEncoders(release)
    loaded = encoders.load_all(names or encoders.names)
    if not loaded:
        raise UserError(
            f"{release}: this release carries no encoder; publish it again with this alignrec"
        )

    columns = ["asin", "input_text_sha256", "input_image_sha256"]
    items = io.read_table(release / ITEMS_FILE, schemas.RELEASED_ITEMS, columns)
    asins = items["asin"].to_pylist()
    covered = [item for item, asin in enumerate(asins) if asin in inputs.asins]
    if not covered:
        raise UserError(
            f"the data has none of the items of {release}; items are matched by identifier (asin)"
        )

    rng = np.random.default_rng(seed_for("attest", io.sha256(release / manifests.MANIFEST_FILE)))
    chosen = sorted(rng.choice(covered, min(sample, len(covered)), replace=False))
    rows: list[AttestedRow] = []
    for start in range(0, len(chosen), ATTEST_BLOCK_ITEMS):
        item_ids = chosen[start : start + ATTEST_BLOCK_ITEMS]
        rows += _compare_items(release, loaded, items.take(item_ids), inputs, item_ids)

    released = encoders.manifest.sets_with("features")
    unattested = [name for name in released if name not in encoders.names]
    return Attestation(rows, len(items), len(covered), unattested)


def _compare_items(
    release: Path,
    loaded: Mapping[str, Loaded],
    items: pa.Table,
    inputs: AttestInputs,
    item_ids: Sequence[int],
) -> list[AttestedRow]:
    asins, text_hashes, image_hashes = (column.to_pylist() for column in items.columns)
    rows = {row.asin: row for row in inputs.read(set(asins))}
    any_encoder = next(iter(loaded.values()))  # all have the same image size and quality
    texts = [rows[asin].text for asin in asins]
    images = [
        _read_image(rows[asin], sha256, any_encoder)
        for asin, sha256 in zip(asins, image_hashes, strict=True)
    ]

    cosines: dict[str, np.ndarray] = {}
    for name, encoder in loaded.items():
        vectors = _read_vectors(release, name, item_ids)
        cosines[name] = paired_cosines(encode_items(encoder, texts, images), vectors)
    return [
        AttestedRow(
            asin,
            text_sha256(texts[n]) == text_hashes[n],
            image_sha256(images[n]) == image_hashes[n],
            {name: float(values[n]) for name, values in cosines.items()},
        )
        for n, asin in enumerate(asins)
    ]


def _read_image(row: ItemRow, sha256: str, encoder: Loaded) -> bytes | None:
    """Return the image of an item as encoders read it; `sha256` is that of the released one."""
    from alignrec.pipeline.images.decode import normalise_image  # loads torch

    limits = Images()
    image = row.image.read(limits.max_bytes) if row.image else None
    # an original file may equal the released bytes after normalisation
    if image is None or image_sha256(image) == sha256:
        return image
    size, quality = encoder.facts.image_size, encoder.facts.image_quality
    return normalise_image(image, size, quality, limits.max_pixels).image


def _read_vectors(release: Path, name: str, item_ids: Sequence[int]) -> np.ndarray:
    """Return the vectors of items, in ascending order, float32 [n, F]."""
    ids = np.array(item_ids)
    blocks = []
    first = 0
    for vectors in io.read_vectors(release / "features" / name, io.PART):
        start, stop = np.searchsorted(ids, [first, first + len(vectors)])
        blocks.append(vectors[ids[start:stop] - first])
        first += len(vectors)
    return np.concatenate(blocks)


def describe_outcome(outcome: Attestation, release: Path) -> Iterator[str]:
    rows = outcome.rows
    for row in rows:
        yield row.describe()
    if outcome.covered < outcome.items:
        yield f"the data has {outcome.covered:,} of the release's {outcome.items:,} items"
    if outcome.unattested:
        names = ", ".join(outcome.unattested)
        yield f"not attested, their encoder is not in the release: {names}"

    lowest = f"lowest cosine {min(min(row.cosines.values()) for row in rows):.5f}"
    if outcome.agrees:
        yield f"{release}: attested; text, image and vector of {len(rows)} rows agree, {lowest}"
        return

    counts = Counter(part for row in rows for part in row.differing)
    reasons = ", ".join(f"{part} of {counts[part]}" for part in COMPARED_PARTS if counts[part])
    n_differing = sum(bool(row.differing) for row in rows)
    yield f"{release}: NOT attested; {n_differing} of {len(rows)} rows differ ({reasons}), {lowest}"
