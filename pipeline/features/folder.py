"""Folder of a feature set: features-*.parquet, set.json, and encoder/ with the files that encode
new items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import MAX_UNKNOWN, MULTILINGUAL
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import Block
from alignrec.pipeline.runtime.layout import FURTHER_STEM, Layout
from alignrec.pipeline.runtime.section import Part

if TYPE_CHECKING:
    from alignrec.pipeline.runtime.run import Run

SET = "set.json"
RELEASED_FOLDER = "released"  # folder of a set like the set's own, see `FeatureSet.released`
MAX_SET_BYTES = 1 << 16  # of set.json
MAX_ENTRIES = 64  # parts, settings and packages of a set
READ = "text"  # key in the metadata of a Parquet file under which it has `Reading.facts`
# kinds whose vectors may all be zero: whitening turns equal vectors into zeros
MAY_BE_ZERO = ("control", "masked", "mapped", "whitened")
WARN_ABOVE_ZEROS = 0.5  # fraction of zero vectors
MIN_UNREAD = 0.05  # fraction of unread texts from which the stage warns
# tolerance for equal vectors, relative to the largest number: batch sizes change the last bits
EQUAL_WITHIN = 1e-5
COUNTING_BLOCK_ROWS = 4096
# settings on which the vector space does not depend
OUTSIDE_SPACE = ("precision", "trained_on", "batch_size")
# settings that earlier versions did not have; without a value, sets keep their fingerprint
LATER_SETTINGS = ("options", "pooling", "task")
Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]
Modality = Literal["image", "text"]


class Span(Part):
    """Consecutive columns computed from the same modalities."""

    reads: Annotated[list[Modality], Field(max_length=2)]
    width: int = Field(ge=1, le=1 << 20)


class Facts(Part):
    """How a feature set was made: set.json, which a release ships as encoder.json."""

    # name of the feature set
    encoder: Annotated[str, Field(max_length=64)]
    # kind of encoder or combination; empty in old releases, whose set names are kinds
    kind: Annotated[str, Field(max_length=64)] = ""
    # empty: unknown
    reads: Annotated[list[Modality], Field(max_length=2)]
    # fields of the kind's settings class
    settings: Annotated[dict[str, Any], Field(max_length=MAX_ENTRIES)]
    # set whose encoder/ has the weights; null: packages have them
    weights: Plain | None = None
    # feature sets that it is derived from, in order
    parts: Annotated[list[Plain], Field(max_length=MAX_ENTRIES)] = []
    # package with its weights -> version
    packages: Annotated[dict[Plain, str], Field(max_length=MAX_ENTRIES)] = {}
    # items per forward pass; affects only rounding
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)]
    # pixels, upper bound on the shorter side of stored images
    image_size: Annotated[int, Field(ge=1, le=1 << 16)]
    # JPEG quality of stored images
    image_quality: Annotated[int, Field(ge=1, le=95)]
    # identifies the vector space, as in the metadata of its files; empty in old releases
    fingerprint: Annotated[dict[str, Any], Field(max_length=MAX_ENTRIES)] = {}
    # whether this folder and `packages` suffice to encode new items
    portable: bool = True
    # modalities of consecutive columns; empty: all are computed from `reads`
    spans: Annotated[list[Span], Field(max_length=2 * MAX_ENTRIES)] = []
    # provenance of third-party models
    model: Annotated[dict[str, Any], Field(max_length=MAX_ENTRIES)] = {}

    @property
    def network(self) -> str:
        return self.kind or self.encoder

    def space(self) -> dict[str, Any]:
        """Fingerprint entries of these facts.

        Weights, maps, parts and models add to it.
        """
        space: dict[str, Any] = {"kind": self.network, "reads": list(self.reads)}
        for key, value in self.settings.items():
            is_default = key in LATER_SETTINGS and value is None
            if key not in OUTSIDE_SPACE and not is_default:
                space[key] = value
        space |= {name: f"{name} {version}" for name, version in self.packages.items()}
        if "image" in self.reads:
            space |= {"image_size": self.image_size, "image_quality": self.image_quality}
        return space

    def with_space(self, space: Mapping[str, Any]) -> Facts:
        return self.model_copy(update={"fingerprint": self.space() | dict(space)})


def drop_unlisted_sets(folder: Path, names: Sequence[str]) -> None:
    """Delete all but these sets, and the record, from the work folder of a stage."""
    for path in folder.iterdir():
        if path.name not in (*names, io.RECORD, io.COST) and not path.name.startswith("."):
            io.remove(path)


def resume_set(
    run: Run,
    folder: Path,
    inputs: Iterable[Path],
    *facts: Any,
    modules: Sequence[str] = (),
    whole: bool = False,
) -> None:
    """Keep what an earlier run of equal inputs wrote of a set; empty its folder if a file is
    damaged or gone.

    Only that file is made again if it is a shard, unless the set is made as a `whole`.
    """
    inputs = list(inputs)
    run.resume(folder, inputs, *facts, modules=modules)
    if run.part:  # other parts may still be writing
        return

    missing = io.list_missing(folder)
    if not whole:
        shards = tuple(f"{stem}-" for stem in ("features", FURTHER_STEM))
        missing = [path for path in missing if not path.name.startswith(shards)]
    if missing:
        run.warn(f"{missing[0]} is gone; its feature set is made again", recorded=False)
        (folder / io.KEY).unlink()
        run.resume(folder, inputs, *facts, modules=modules)


@dataclass(frozen=True)
class FeatureSet:
    """A feature set of a dataset on disk."""

    name: str
    folder: Path
    stem: str = "features"  # of its files

    @classmethod
    def of(cls, layout: Layout, name: str) -> FeatureSet:
        """Open a feature set; raises UserError if no stage has written it."""
        folder = layout.features(name)
        if not (folder / SET).is_file():
            raise UserError(
                f"{folder}: no feature set '{name}' of {layout.dataset}; "
                "list it in the parameters, run `dvc repro`"
            )
        return cls(name, folder)

    def further(self) -> FeatureSet | None:
        """Return its vectors of items outside the k-core; None if there are none."""
        further = FeatureSet(self.name, self.folder, FURTHER_STEM)
        return further if any(self.folder.glob(f"{FURTHER_STEM}-*.parquet")) else None

    @cached_property
    def facts(self) -> Facts:
        return Facts.read(self.folder / SET, MAX_SET_BYTES)

    @property
    def encoder(self) -> Path:
        return self.folder / ENCODER

    @cached_property
    def shards(self) -> list[Path]:
        return io.shards(self.folder, self.stem)

    @cached_property
    def width(self) -> int:
        return io.width(self.folder)

    @property
    def released(self) -> FeatureSet:
        """The set with the encoder that a release holds, which differs where one is aligned.

        There the parts and maps are those before the rotation, which comes last.
        """
        stored = FeatureSet(self.name, self.folder / RELEASED_FOLDER)
        return stored if (stored.folder / SET).is_file() else self

    @property
    def spans(self) -> list[Span]:
        return self.facts.spans or [Span(reads=self.facts.reads, width=self.width)]

    def files(self) -> list[Path]:
        return [self.folder / SET, *self.shards]

    def read(self, number: int) -> pa.Table:
        return io.read_table(self.shards[number], schemas.features(self.width))

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the vectors of each shard in item order, float32 [n, F]."""
        for number in range(len(self.shards)):
            yield io.matrix(self.read(number)["vector"])

    def distinguishes(self) -> bool:
        items, _, equal = count_vectors(_vectors_with_content(self.shards))
        return items < 2 or not equal


@contextmanager
def linked_catalogue(features: FeatureSet) -> Iterator[Path]:
    """Yield a temporary folder with links to all files of a set, those of items outside the k-core
    last, so that it reads as one set.
    """
    further = features.further()
    paths = [*features.shards, *(further.shards if further else ())]
    with TemporaryDirectory(prefix="alignrec-") as folder:
        for number, path in enumerate(paths):
            io.shard(Path(folder), "features", number).symlink_to(path.resolve())
        yield Path(folder)


def feature_rows(ids: pa.Table, vectors: np.ndarray, has_image: Any, has_text: Any) -> pa.Table:
    """Return rows of schema features(F) from vectors, float32 [n, F], and flags, bool [n], null if
    unknown.
    """
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
    unread: float  # fraction of texts with more than MAX_UNKNOWN of their tokens outside it


def text_shares(files: Iterable[Path]) -> Shares | None:
    sums = Counter[str]()
    for path in files:
        sums.update(io.record(path).get(READ, {}))
    if not sums["items"]:
        return None

    return Shares(*(sums[name] / sums["items"] for name in Shares._fields))


def judge_quality(
    facts: Facts, shards: Sequence[Path], file: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return facts about a set for run.json, and warnings.

    Raises UserError if all vectors are zero.
    """
    name = facts.encoder
    note: dict[str, Any] = {}
    if facts.model:
        note["encoder"] = {"dim": io.width(shards[0].parent)} | facts.model

    warnings = []
    if shares := text_shares(shards):
        note |= {"text_read": round(shares.read, 4), "text_cut": round(shares.cut, 4)}
        if shares.unread:
            note["text_unread"] = round(shares.unread, 4)
        warnings += [f"{name}: {problem}" for problem in describe_reading(shares)]

    items, zero, equal = count_vectors(_vectors_with_content(shards))
    if items and zero == items and not facts.parts and facts.kind not in MAY_BE_ZERO:
        raise UserError(
            f"{file or name}: all {items:,} items with content have a vector of zeros; "
            "correct or leave it out"
        )

    if items > 1 and equal and zero < items:
        warnings.append(f"{name}: all {items:,} items with content have the same vector")
    elif zero > WARN_ABOVE_ZEROS * items:
        warnings.append(f"{name}: {zero:,} of {items:,} items with content have a vector of zeros")

    return {name: note} if note else {}, warnings


def describe_model(facts: Facts) -> str:
    """Return what was chosen for a third-party model: precision, pooling, task and prompt."""
    named = [(name, facts.model.get(name)) for name in ("precision", "pooling", "task")]
    parts = [f"{name} {value}" for name, value in named if value]
    if prompt := facts.model.get("prompt"):
        parts.append(f"prompt {prompt!r}")
    return ", ".join(parts)


def describe_reading(shares: Shares) -> list[str]:
    """Return what an encoder did not read of the texts."""
    problems = []
    if shares.cut:
        problems.append(
            f"reads {shares.read:.0%} of a text on average; {shares.cut:.0%} of texts are cut"
        )
    if shares.unread >= MIN_UNREAD:
        problems.append(
            f"cannot read {shares.unread:.0%} of texts; add an encoder of their language, such as "
            f"`{MULTILINGUAL}`, and list it in encode.encoders"
        )
    return problems


def joinable_blocks(
    parts: Sequence[FeatureSet], distinct: Sequence[bool], image: float
) -> list[Block]:
    """Return the blocks of `distinct` parts: image-only ones of weight `image`, others of weight 1.

    Texts that their encoder cannot read are left out unless no other blocks are left.
    """
    blocks = []
    readable = []
    for number, part in enumerate(parts):
        if not distinct[number]:
            continue

        shares = text_shares(part.shards)
        is_read = shares is None or shares.unknown <= MAX_UNKNOWN
        of_images = columns_read_from(part, "image")
        of_texts = columns_read_from(part, "text")
        for columns, weight in ((~of_images, 1.0), (of_images, image)):
            if columns.any():
                block = Block(number, columns, weight)
                blocks.append(block)
                if is_read or not of_texts[columns].all():
                    readable.append(block)

    return readable or blocks


def columns_read_from(part: FeatureSet, modality: Modality) -> np.ndarray:
    """Return which columns are computed from this modality and no other, bool [F]."""
    spans = [np.repeat([*span.reads] == [modality], span.width) for span in part.spans]
    return np.concatenate(spans)


def differ(vectors: np.ndarray) -> bool:
    """Return whether any two nonzero rows of [I, F] differ."""

    def nonzero_blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(vectors), COUNTING_BLOCK_ROWS):
            block = vectors[start : start + COUNTING_BLOCK_ROWS]
            yield block[block.any(axis=1)]

    _, _, equal = count_vectors(nonzero_blocks())
    return not equal


def count_vectors(blocks: Iterable[np.ndarray]) -> tuple[int, int, bool]:
    """Return the number of vectors, the number of zero vectors, and whether all are equal."""
    items = 0
    zero = 0
    equal = True
    first: np.ndarray | None = None
    for vectors in blocks:
        if not len(vectors):
            continue

        if first is None:
            first = vectors[0]
        items += len(vectors)
        zero += int((~vectors.any(axis=1)).sum())
        largest_difference = np.abs(vectors - first).max()
        equal = equal and bool(largest_difference <= EQUAL_WITHIN * np.abs(first).max())

    return items, zero, equal


def _vectors_with_content(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        rows = pq.read_table(path, columns=["has_image", "has_text", "vector"])
        nothing = pc.and_kleene(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))
        has_content = pc.invert(nothing).fill_null(True)
        yield io.matrix(rows.filter(has_content)["vector"])
