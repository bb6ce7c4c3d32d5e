"""Recomputes rows of a release from their inputs: do text, image, vector and codes agree with what was released?

Texts and images are compared by sha256 with what went into the encoders, vectors by cosine. Codes agree if they
represent the recomputed vector as well as the release says; that they are the nearest ones is only counted, as bounded
clusters and reassigned collisions choose others. B rows of a batch, F width, L levels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError, printable
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.release import encoded, encoder, item_file, semantic_ids
from pipeline.release import manifest as manifests
from pipeline.release.build import image_sha256, text_sha256
from pipeline.release.encoder import Loaded
from pipeline.release.manifest import Manifest
from pipeline.seeds import seed_for
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS

AGREES = 0.999
"""least cosine of a released and a recomputed vector; other machines and batches change only the last bits"""
AS_RELEASED = 0.001
"""largest difference between the released cosine of vector and codes and the recomputed one"""
BLOCK = 1024


class Input(NamedTuple):
    """What goes into the encoders for one item."""

    asin: str
    text: str
    image: bytes | None
    """a JPEG as the pipeline stores it, or any image file"""


class Dataset:
    """The outputs of a dataset's stages `items` and `images`."""

    def __init__(self, layout: Layout) -> None:
        self.name, self._layout = layout.dataset, layout

    def asins(self) -> Iterable[str]:
        return io.read_table(self._layout.items, schemas.ITEMS, ["asin"])["asin"].to_pylist()

    def read(self, wanted: set[str]) -> Iterator[Input]:
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

    def asins(self) -> Iterable[str]:
        return (row.asin for row in self._rows())

    def read(self, wanted: set[str]) -> Iterator[Input]:
        return (Input(r.asin, r.text, r.read(Images().max_bytes)) for r in self._rows() if r.asin in wanted)

    def _rows(self) -> Iterator[item_file.Row]:
        return (row for rows, _ in item_file.blocks(self._path, self._images) for row in rows)


Inputs = Dataset | Files


class CodesRow(NamedTuple):
    """How the codes of one item compare with those of its recomputed vector."""

    agrees: bool
    """whether they represent it as well as the release says, or neither has a direction"""
    levels: int
    """first codes that are the nearest ones, 0 .. L"""
    nearest: bool


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
    def differing(self) -> set[str]:
        agree = {
            "text": self.text,
            "image": self.image,
            "vector": all(cosine >= AGREES for cosine in self.cosines.values()),
            "codes": all(codes.agrees for codes in self.codes.values()),
        }
        return {what for what, agrees in agree.items() if not agrees}


class Attestation(NamedTuple):
    """The outcome of `attest`."""

    rows: list[Row]
    items: int
    covered: int
    """items of the release that the data has"""
    unattested: list[str]
    """feature sets whose encoder the release does not carry"""

    @property
    def agrees(self) -> bool:
        return not any(row.differing for row in self.rows)


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
    manifest, available = manifests.load(release), encoder.names(release)
    loaded = encoder.load_all(release, names or available)
    if not loaded:
        raise UserError(f"{release}: this release carries no encoder; publish it again with this alignrec")
    columns = ["asin", "input_text_sha256", "input_image_sha256"]
    asins, *hashes = io.read_table(release / "items.parquet", schemas.RELEASED_ITEMS, columns).to_pydict().values()
    row_of = {asin: i for i, asin in enumerate(asins)}
    covered = sorted(row_of[asin] for asin in set(data.asins()) if asin in row_of)
    if not covered:
        raise UserError(f"{data.name}: has none of the items of {release}; items are matched by identifier (asin)")
    rng = np.random.default_rng(seed_for("attest", io.sha256(release / manifests.NAME)))
    chosen = [covered[i] for i in sorted(rng.choice(len(covered), min(sample, len(covered)), replace=False))]
    every, rows = data.read({asins[i] for i in chosen}), list[Row]()
    codes = _load_codes(release, manifest, loaded)
    while block := list(islice(every, BLOCK)):
        at = [row_of[item.asin] for item in block]
        rows += _recompute(release, loaded, codes, block, [(hashes[0][i], hashes[1][i]) for i in at], at)
    rows.sort(key=lambda row: row_of[row.asin])
    sets = sorted({str(f.feature_set) for f in manifest.files if f.table == "features"})
    return Attestation(rows, len(row_of), len(covered), [name for name in sets if name not in available])


def _recompute(
    release: Path,
    loaded: Mapping[str, Loaded],
    coded: Mapping[str, "Codes"],
    block: Sequence[Input],
    hashes: Sequence[tuple[str, str]],
    at: Sequence[int],
) -> list[Row]:
    """Compare B items with rows `at` of the release, whose hashes of text and image are given."""
    facts = next(iter(loaded.values())).facts  # images are stored alike for all feature sets
    images = [
        item.image
        if item.image is None or image_sha256(item.image) == image
        else encoded.normalised(item.image, facts).image
        for item, (_, image) in zip(block, hashes, strict=True)
    ]
    texts = [item.text for item in block]
    vectors = {name: encoded.vectors(network, texts, images).vectors for name, network in loaded.items()}
    cosines = {name: _cosines(x, _released(release, name, at)) for name, x in vectors.items()}
    codes = {name: codes.compare(vectors[codes.facts.features], at) for name, codes in coded.items()}
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
    agree = {True: "agrees", False: "DIFFERS"}
    for row in attestation.rows:
        parts = [f"text {agree[row.text]}", f"image {agree[row.image]}"]
        parts += [f"{name} {agree[cosine >= AGREES]} (cosine {cosine:.5f})" for name, cosine in row.cosines.items()]
        for name, one in row.codes.items():
            nearest = "" if one.nearest else f" (nearest in the first {one.levels})"
            parts.append(f"codes {name} {agree[one.agrees]}{nearest}")
        yield printable(f"{row.asin}: {', '.join(parts)}")
    if attestation.covered < attestation.items:
        yield f"the data has {attestation.covered:,} of the release's {attestation.items:,} items"
    if attestation.unattested:
        yield f"not attested, their encoder is not in the release: {', '.join(attestation.unattested)}"
    for name in attestation.rows[0].codes:
        n = sum(row.codes[name].nearest for row in attestation.rows)
        yield f"codes {name}: nearest at every level for {n} of {len(attestation.rows)} rows"
    yield _verdict(attestation.rows, release)


def described(attestation: Attestation) -> dict[str, Any]:
    """Return the outcome for JSON: `agrees`, `items`, `covered`, `unattested`, and `rows`."""
    rows = [
        row._asdict() | {"codes": {n: c._asdict() for n, c in row.codes.items()}, "agrees": not row.differing}
        for row in attestation.rows
    ]
    return {"agrees": attestation.agrees} | attestation._asdict() | {"rows": rows}


def _verdict(rows: Sequence[Row], release: Path) -> str:
    lowest = min((cosine for row in rows for cosine in row.cosines.values()), default=1.0)
    if not (bad := [row.differing for row in rows if row.differing]):
        what = "text, image, vector and codes" if rows and rows[0].codes else "text, image and vector"
        return f"{release}: attested; {what} of {len(rows)} rows agree, lowest cosine {lowest:.5f}"
    counts = {what: sum(what in one for one in bad) for what in ("text", "image", "vector", "codes")}
    parts = ", ".join(f"{what} of {n}" for what, n in counts.items() if n)
    return f"{release}: NOT attested; {len(bad)} of {len(rows)} rows differ ({parts}), lowest cosine {lowest:.5f}"


def _released(release: Path, name: str, rows: Sequence[int]) -> np.ndarray:
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


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.shape != b.shape:
        raise UserError(f"the encoder's vectors have {a.shape[1]} dimensions, the release's {b.shape[1]}")
    (x, directed), (y, there) = unit_rows(a), unit_rows(b)
    return np.where(directed | there, np.einsum("nf,nf->n", x, y, dtype=np.float64), 1.0)  # two zeros agree


class Codes:
    """Released semantic IDs of one feature set by one method."""

    def __init__(self, folder: Path) -> None:
        self.facts, self._method = files.load(folder)
        table = io.read_table(folder / files.IDS, schemas.semantic_ids(self.facts.levels))
        rows, codes = files.matrix(table)
        self._codes = np.full((len(table), self.facts.levels), semantic_ids.NONE, np.int32)
        self._codes[rows] = codes
        self._released = table["cosine"].fill_null(0).to_numpy()

    def compare(self, x: np.ndarray, at: Sequence[int]) -> list[CodesRow]:
        """Compare recomputed vectors, float32 [B, F], with the released codes of rows `at`."""
        codes, released = self._codes[list(at)], self._released[list(at)]
        nearest = semantic_ids.encoded(self._method, x, self.facts.levels)
        same = np.logical_and.accumulate(codes == nearest, axis=1).sum(axis=1)
        both = (codes[:, 0] == semantic_ids.NONE) == (nearest[:, 0] == semantic_ids.NONE)
        agrees = both & (np.abs(semantic_ids.cosines(self._method, x, codes) - released) <= AS_RELEASED)
        return [CodesRow(bool(a), int(n), bool(n == self.facts.levels)) for a, n in zip(agrees, same, strict=True)]


def _load_codes(release: Path, manifest: Manifest, names: Mapping[str, Loaded]) -> dict[str, Codes]:
    """Return `<feature set>/<method>` -> codes, without controls, whose codes say nothing of a vector."""
    return {
        f"{name}/{method}": Codes(semantic_ids.folder_of(release, manifest, name, method))
        for name, method in semantic_ids.names(manifest)
        if name in names and (method not in METHODS or not METHODS[method].control)
    }
