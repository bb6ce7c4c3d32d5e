"""Recomputes rows of a release from their inputs: do text, image, vector and codes agree with what was released?

Texts and images are compared by sha256 with what went into the encoders, vectors by cosine. Codes agree if they stand
for the recomputed vector as well as the release says; how many are the nearest ones is counted beside, as bounded
clusters and reassigned collisions choose others.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError, printable
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.release import encoded, encoder, item_file, recoded
from pipeline.release import manifest as manifests
from pipeline.release.build import image_sha256, text_sha256
from pipeline.release.encoder import Facts, Loaded
from pipeline.release.recoded import Codes, CodesRow
from pipeline.seeds import seed_for

AGREES = 0.999
"""cosine of a released and a recomputed vector; other machines and batches change the last bits alone"""
BLOCK = 1024
"""items encoded at a time; bounds memory"""


class Input(NamedTuple):
    """What goes into the encoders for one item."""

    asin: str
    text: str
    image: bytes | None
    """a JPEG as the pipeline stores it, or any image file; None where there is none"""


class Inputs(Protocol):
    """Where inputs are read from."""

    name: str

    def asins(self) -> Iterator[str]:
        """Yield the identifier of every item."""

    def read(self, wanted: set[str]) -> Iterator[Input]:
        """Yield the wanted items."""


class Dataset:
    """The outputs of a dataset's stages `items` and `images`."""

    def __init__(self, layout: Layout) -> None:
        self.name, self._layout = layout.dataset, layout

    def asins(self) -> Iterator[str]:
        """Yield the identifier of every item."""
        yield from io.read_table(self._layout.items, schemas.ITEMS, ["asin"])["asin"].to_pylist()

    def read(self, wanted: set[str]) -> Iterator[Input]:
        """Yield the wanted items in item order, a row group of images in memory; UserError for images of others."""
        items = io.read_table(self._layout.items, schemas.ITEMS, ["asin", "text"])
        images = self._images(wanted)
        for asin, text in zip(items["asin"].to_pylist(), items["text"].to_pylist(), strict=True):
            if asin in wanted:
                owner, image = next(images, (asin, None))
                if owner != asin:
                    raise UserError(f"{self._layout.images}: images of other items; run `alignrec images {self.name}`")
                yield Input(asin, text, image)

    def _images(self, wanted: set[str]) -> Iterator[tuple[str, bytes | None]]:
        for path in sorted(self._layout.images.glob("images-*.parquet")):
            for table in io.read_tables(path, schemas.IMAGES):
                for asin, image in zip(table["asin"], table["image"], strict=True):
                    if asin.as_py() in wanted:
                        yield asin.as_py(), image.as_py()


class Files:
    """A file of items and a folder of images, see `item_file`."""

    def __init__(self, path: Path, images: Path | None) -> None:
        self.name, self._path, self._images = str(path), path, images

    def asins(self) -> Iterator[str]:
        """Yield the identifier of every item."""
        return (row.asin for row in self._rows())

    def read(self, wanted: set[str]) -> Iterator[Input]:
        """Yield the wanted items, in the file's order."""
        for row in self._rows():
            if row.asin in wanted:
                yield Input(row.asin, row.text, row.read(Images().max_bytes))

    def _rows(self) -> Iterator[item_file.Row]:
        for rows, _ in item_file.blocks(self._path, self._images):
            yield from rows


class Row(NamedTuple):
    """How one item of the release compares with its inputs."""

    asin: str
    text: bool
    image: bool
    cosines: dict[str, float]
    """feature set -> cosine of the released and the recomputed vector"""
    codes: dict[str, CodesRow]
    """`<feature set>/<method>` -> how its codes compare"""

    @property
    def agrees(self) -> bool:
        """Whether text, image, all vectors and all codes agree."""
        vectors = all(cosine >= AGREES for cosine in self.cosines.values())
        return self.text and self.image and vectors and all(codes.agrees for codes in self.codes.values())


class Attestation(NamedTuple):
    """The outcome of `attest`."""

    rows: list[Row]
    """in the release's order"""
    items: int
    """in the release"""
    covered: int
    """of them, in the data"""
    unattested: list[str]
    """feature sets whose encoder the release does not carry"""

    @property
    def agrees(self) -> bool:
        return all(row.agrees for row in self.rows)


def inputs(data: str, images: Path | None, root: Path) -> Inputs:
    """Return where to read inputs: a file of items and a folder of images, or a dataset; UserError if neither."""
    if Path(data).is_file():
        return Files(Path(data), images)
    layout = Layout(root, data)
    if Path(data).name == data and layout.items.is_file():
        return Dataset(layout)
    raise UserError(f"'{data}': neither a file of items nor a dataset with items under {root}")


def attest(release: Path, data: Inputs, sample: int, names: Sequence[str] = ()) -> Attestation:
    """Recompute rows of a verified release, `sample` of those that the data covers.

    Equal inputs give equal rows. UserError if it carries no encoder of `names`, by default all, or no hashes of
    inputs, or the data has no item of it.
    """
    manifest = manifests.load(release)
    available = encoder.names(release)
    loaded = encoder.load_all(release, names or available)
    if not loaded:
        raise UserError(f"{release}: this release carries no encoder; publish it again with this alignrec")
    columns = ["asin", "input_text_sha256", "input_image_sha256"]
    items = io.read_table(release / "items.parquet", schemas.RELEASED_ITEMS, columns).to_pydict()
    row_of = {asin: i for i, asin in enumerate(items["asin"])}
    chosen, covered = _sampled(data, row_of, sample, io.sha256(release / manifests.NAME), release)
    every, rows = data.read({items["asin"][i] for i in chosen}), list[Row]()
    coded = recoded.load(release, manifest, loaded)
    while block := list(islice(every, BLOCK)):
        at = [row_of[item.asin] for item in block]
        hashes = [(items["input_text_sha256"][i], items["input_image_sha256"][i]) for i in at]
        rows += _recomputed(release, loaded, coded, block, hashes, at)
    rows.sort(key=lambda row: row_of[row.asin])
    sets = sorted({str(f.feature_set) for f in manifest.files if f.table == "features"})
    return Attestation(rows, len(row_of), covered, [name for name in sets if name not in available])


def _recomputed(
    release: Path,
    loaded: Mapping[str, Loaded],
    coded: Mapping[str, Codes],
    block: Sequence[Input],
    hashes: Sequence[tuple[str, str]],
    at: Sequence[int],
) -> list[Row]:
    """Return how a block of B items compares with the release, whose hashes of text and image, and rows, are given."""
    facts = next(iter(loaded.values())).facts  # images are stored alike for all feature sets
    images = [_stored(item, image, facts) for item, (_, image) in zip(block, hashes, strict=True)]
    texts = [item.text for item in block]
    vectors = {name: encoded.vectors(network, texts, images).vectors for name, network in loaded.items()}
    cosines = {name: _cosines(x, released(release, name, at)) for name, x in vectors.items()}
    codes = {name: codes.compared(vectors[codes.facts.features], at) for name, codes in coded.items()}
    return [
        Row(
            item.asin,
            text_sha256(item.text) == hashes[n][0],
            image_sha256(images[n]) == hashes[n][1],
            {name: float(values[n]) for name, values in cosines.items()},
            {name: values[n] for name, values in codes.items()},
        )
        for n, item in enumerate(block)
    ]


def lines(attestation: Attestation, release: Path) -> Iterator[str]:
    """Yield a line a row, and the verdict last."""
    agree = {True: "agrees", False: "DIFFERS"}
    for row in attestation.rows:
        cosines = "".join(
            f", {name} {agree[cosine >= AGREES]} (cosine {cosine:.5f})" for name, cosine in row.cosines.items()
        )
        codes = "".join(
            f", codes {name} {agree[one.agrees]}" + ("" if one.nearest else f" (nearest in the first {one.levels})")
            for name, one in row.codes.items()
        )
        yield printable(f"{row.asin}: text {agree[row.text]}, image {agree[row.image]}{cosines}{codes}")
    if attestation.covered < attestation.items:
        yield f"the data has {attestation.covered:,} of the release's {attestation.items:,} items"
    if attestation.unattested:
        yield f"not attested, their encoder is not in the release: {', '.join(attestation.unattested)}"
    for name in attestation.rows[0].codes:
        nearest = sum(row.codes[name].nearest for row in attestation.rows)
        yield f"codes {name}: nearest at every level for {nearest} of {len(attestation.rows)} rows"
    yield verdict(attestation, release)


def described(attestation: Attestation) -> dict[str, Any]:
    """Return the outcome for JSON: `agrees`, `items`, `covered`, `unattested`, and `rows`."""
    rows = [
        row._asdict() | {"codes": {n: c._asdict() for n, c in row.codes.items()}, "agrees": row.agrees}
        for row in attestation.rows
    ]
    return {"agrees": attestation.agrees} | attestation._asdict() | {"rows": rows}


def verdict(attestation: Attestation, release: Path) -> str:
    """Return the outcome in one line."""
    rows = attestation.rows
    lowest = min((cosine for row in rows for cosine in row.cosines.values()), default=1.0)
    if attestation.agrees:
        what = "text, image, vector and codes" if rows and rows[0].codes else "text, image and vector"
        return f"{release}: attested; {what} of {len(rows)} rows agree, lowest cosine {lowest:.5f}"
    wrong = {
        "text": sum(not row.text for row in rows),
        "image": sum(not row.image for row in rows),
        "vector": sum(any(cosine < AGREES for cosine in row.cosines.values()) for row in rows),
        "codes": sum(not all(one.agrees for one in row.codes.values()) for row in rows),
    }
    parts = ", ".join(f"{what} of {n}" for what, n in wrong.items() if n)
    bad = sum(not row.agrees for row in rows)
    return f"{release}: NOT attested; {bad} of {len(rows)} rows differ ({parts}), lowest cosine {lowest:.5f}"


def released(release: Path, name: str, rows: Sequence[int]) -> np.ndarray:
    """Return rows of a released feature set, float32 [n, F], a file in memory at a time."""
    vectors: dict[int, np.ndarray] = {}
    first = 0
    for path in io.shards(release / "features" / name, "features"):
        n = pq.read_metadata(path).num_rows
        here = [row for row in rows if first <= row < first + n]
        if here:
            column = pq.read_table(path, columns=["vector"], partitioning=None)["vector"]
            vectors |= dict(zip(here, io.matrix(column.take([row - first for row in here])), strict=True))
        first += n
    return np.stack([vectors[row] for row in rows])


def _sampled(data: Inputs, row_of: dict[str, int], sample: int, seed: str, release: Path) -> tuple[list[int], int]:
    """Return the rows to recompute, and how many the data covers."""
    covered = sorted(row_of[asin] for asin in set(data.asins()) if asin in row_of)
    if not covered:
        raise UserError(f"{data.name}: has none of the items of {release}; items are matched by identifier (asin)")
    rng = np.random.default_rng(seed_for("attest", seed))
    drawn = rng.choice(len(covered), min(sample, len(covered)), replace=False)
    return [covered[i] for i in sorted(drawn)], len(covered)


def _stored(item: Input, expected: str, facts: Facts) -> bytes | None:
    """Return the JPEG that encoders read: the input itself if it is the one, else what the pipeline makes of it."""
    if item.image is None or image_sha256(item.image) == expected:
        return item.image
    return encoded.normalised(item.image, facts).image


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of float32 [n, F] with the same row of another; two zeros agree."""
    if a.shape != b.shape:
        raise UserError(f"the encoder's vectors have {a.shape[1]} dimensions, the release's {b.shape[1]}")
    (x, directed), (y, there) = unit_rows(a), unit_rows(b)
    return np.where(directed | there, np.einsum("nf,nf->n", x, y, dtype=np.float64), 1.0)
