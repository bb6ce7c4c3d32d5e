"""Folder of a feature set: features-*.parquet, set.json, and encoder/ with the files that encode new items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import MULTILINGUAL
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import Block
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import Part

SET = "set.json"
LARGEST = 1 << 16  # maximum bytes of set.json
MOST = 64  # upper bound on parts, settings and packages
READ = "text"  # key in the metadata of a Parquet file under which it has `Reading.facts`
DERIVED = ("control", "masked", "mapped", "whitened")  # kinds whose vectors may all be zero
ZEROS = 0.5  # fraction of zero vectors above which to warn
UNREAD = 0.25  # fraction of unknown tokens above which texts count as unread: vectors of the rest are mostly noise
EQUAL = 1e-5  # tolerance, relative to the largest number: batch sizes change the last bits
BLOCK = 4096  # rows read at a time
Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]
Modality = Literal["image", "text"]


class Span(Part):
    """Consecutive columns computed from the same modalities."""

    reads: Annotated[list[Modality], Field(max_length=2)]
    width: int = Field(ge=1, le=1 << 20)


class Facts(Part):
    """How a feature set was made: set.json, which a release ships as encoder.json."""

    encoder: Annotated[str, Field(max_length=64)]  # name of the feature set
    # kind of encoder or combination; empty in old releases, whose set names are kinds
    kind: Annotated[str, Field(max_length=64)] = ""
    reads: Annotated[list[Modality], Field(max_length=2)]  # empty: unknown
    settings: Annotated[
        dict[str, Any], Field(max_length=MOST)
    ]  # fields of the kind's settings class
    weights: Plain | None = None  # set whose encoder/ has the weights; null: packages have them
    parts: Annotated[
        list[Plain], Field(max_length=MOST)
    ] = []  # feature sets that it is derived from, in order
    packages: Annotated[
        dict[Plain, str], Field(max_length=MOST)
    ] = {}  # package with its weights -> version
    batch_size: Annotated[
        int, Field(ge=1, le=1 << 20)
    ]  # items per forward pass; affects only rounding
    image_size: Annotated[
        int, Field(ge=1, le=1 << 16)
    ]  # pixels, upper bound on the shorter side of stored images
    image_quality: Annotated[int, Field(ge=1, le=95)]  # JPEG quality of stored images
    # identifies the vector space, as in the metadata of its files; empty in old releases
    fingerprint: Annotated[dict[str, Any], Field(max_length=MOST)] = {}
    portable: bool = True  # whether this folder and `packages` suffice to encode new items
    # modalities of consecutive columns; empty: all are computed from `reads`
    spans: Annotated[list[Span], Field(max_length=2 * MOST)] = []
    model: Annotated[
        dict[str, Any], Field(max_length=MOST)
    ] = {}  # provenance of third-party models

    @property
    def network(self) -> str:
        return self.kind or self.encoder

    def space(self) -> dict[str, Any]:
        """Return what these facts contribute to the fingerprint; weights, maps, parts and models add to it."""
        # the vector space depends neither on precision nor on the library's version
        settings = {key: value for key, value in self.settings.items() if key != "precision"}
        packages = {name: f"{name} {version}" for name, version in self.packages.items()}
        images = {"image_size": self.image_size, "image_quality": self.image_quality}
        own = {"kind": self.network, "reads": list(self.reads)} | settings | packages
        return own | (images if "image" in self.reads else {})

    def with_space(self, space: Mapping[str, Any]) -> Facts:
        return self.model_copy(update={"fingerprint": self.space() | dict(space)})


@dataclass(frozen=True)
class FeatureSet:
    """A feature set of a dataset on disk."""

    name: str
    folder: Path

    @classmethod
    def of(cls, layout: Layout, name: str) -> FeatureSet:
        """Open a feature set; raises UserError if no stage has written it."""
        folder = layout.features(name)
        if not (folder / SET).is_file():
            raise UserError(
                f"{folder}: no feature set '{name}' of {layout.dataset}; list it in the parameters, run `dvc repro`"
            )
        return cls(name, folder)

    @cached_property
    def facts(self) -> Facts:
        return Facts.read(self.folder / SET, LARGEST)

    @property
    def encoder(self) -> Path:
        return self.folder / ENCODER

    @cached_property
    def shards(self) -> list[Path]:
        return io.shards(self.folder, "features")

    @cached_property
    def width(self) -> int:
        return io.width(self.folder)

    @property
    def spans(self) -> list[Span]:
        return self.facts.spans or [Span(reads=self.facts.reads, width=self.width)]

    def files(self) -> list[Path]:
        return [self.folder / SET, *self.shards]

    def read(self, number: int) -> pa.Table:
        return io.read_table(self.shards[number], schemas.features(self.width))

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the vectors of each shard in item order, float32 [n, F]."""
        yield from (io.matrix(self.read(number)["vector"]) for number in range(len(self.shards)))

    def distinguishes(self) -> bool:
        items, _, equal = count_vectors(_vectors_with_content(self.shards))
        return items < 2 or not equal


def feature_rows(ids: pa.Table, vectors: np.ndarray, has_image: Any, has_text: Any) -> pa.Table:
    """Return rows of schema features(F) from vectors, float32 [n, F], and flags, bool [n], null if unknown."""
    columns = {
        "item_id": ids["item_id"],
        "asin": ids["asin"],
        "has_image": has_image,
        "has_text": has_text,
    }
    return pa.table(columns | {"vector": io.vectors(vectors)})


class Shares(NamedTuple):
    """How much of the texts an encoder read, over the items that have one."""

    read: float  # mean fraction of a text's tokens that was encoded and is in the vocabulary
    cut: float  # fraction of truncated texts
    unknown: float  # mean fraction of a text's tokens outside the vocabulary


def text_shares(files: Iterable[Path]) -> Shares | None:
    sums = Counter[str]()
    for path in files:
        sums.update(io.record(path).get(READ, {}))
    return (
        Shares(*(sums[name] / sums["items"] for name in Shares._fields)) if sums["items"] else None
    )


def judge_quality(
    facts: Facts, shards: Sequence[Path], file: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return facts about a set for run.json, and warnings; raises UserError if all vectors are zero."""
    name, warnings = facts.encoder, list[str]()
    note: dict[str, Any] = (
        {"encoder": {"dim": io.width(shards[0].parent)} | facts.model} if facts.model else {}
    )
    if shares := text_shares(shards):
        note |= {"text_read": round(shares.read, 4), "text_cut": round(shares.cut, 4)}
        if shares.cut:
            warnings.append(
                f"{name}: reads {shares.read:.0%} of a text on average; {shares.cut:.0%} of texts are cut"
            )
        if shares.unknown > UNREAD:
            why = f"{name}: cannot read {shares.unknown:.0%} of a text on average"
            hint = f"add an encoder of its language, such as `{MULTILINGUAL}`, and list it in encode.encoders"
            warnings.append(f"{why}; {hint}")
    items, zero, equal = count_vectors(_vectors_with_content(shards))
    # whitening turns equal vectors into zeros
    if items and zero == items and not facts.parts and facts.kind not in DERIVED:
        where = file or name
        raise UserError(
            f"{where}: all {items:,} items with content have a vector of zeros; correct or leave it out"
        )
    if items > 1 and equal and zero < items:
        warnings.append(f"{name}: all {items:,} items with content have the same vector")
    elif zero > ZEROS * items:
        warnings.append(f"{name}: {zero:,} of {items:,} items with content have a vector of zeros")
    return {name: note} if note else {}, warnings


def joinable_blocks(
    parts: Sequence[FeatureSet], distinct: Sequence[bool], image: float
) -> list[Block]:
    """Return the blocks of `distinct` parts, without texts that their encoder cannot read unless no others are left."""
    blocks = []  # image-only ones of weight `image`, and others of weight 1
    for number, part in enumerate(parts):
        pictured = np.concatenate(
            [np.repeat([*span.reads] == ["image"], span.width) for span in part.spans]
        )
        for columns, weight in ((~pictured, 1.0), (pictured, image)):
            if distinct[number] and columns.any():
                blocks.append(Block(number, columns, weight))
    shares = [text_shares(part.shards) for part in parts]
    reads = [of is None or of.unknown <= UNREAD for of in shares]
    written = [
        np.concatenate([np.repeat([*span.reads] == ["text"], span.width) for span in part.spans])
        for part in parts
    ]
    read = [
        block
        for block in blocks
        if reads[block.part] or not written[block.part][block.columns].all()
    ]
    return read or blocks


def differ(vectors: np.ndarray) -> bool:
    """Return whether any two nonzero rows of [I, F] differ."""
    blocks = (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))
    return not count_vectors(block[block.any(axis=1)] for block in blocks)[2]


def count_vectors(blocks: Iterable[np.ndarray]) -> tuple[int, int, bool]:
    """Return the number of vectors, the number of zero vectors, and whether all are equal."""
    items, zero, equal = 0, 0, True
    first: np.ndarray | None = None
    for vectors in blocks:
        if not len(vectors):
            continue
        first = vectors[0] if first is None else first
        items += len(vectors)
        zero += int((~vectors.any(axis=1)).sum())
        equal = equal and bool(np.abs(vectors - first).max() <= EQUAL * np.abs(first).max())
    return items, zero, equal


def _vectors_with_content(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        rows = pq.read_table(path, columns=["has_image", "has_text", "vector"])
        nothing = pc.and_kleene(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))
        yield io.matrix(rows.filter(pc.invert(nothing).fill_null(True))["vector"])
