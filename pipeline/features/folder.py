"""Folder of a feature set: features-*.parquet, set.json, and encoder/ with the files that encode
new items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import FURTHER_STEM, Layout
from alignrec.pipeline.runtime.section import Part

if TYPE_CHECKING:
    from alignrec.pipeline.runtime.run import Run

SET = "set.json"
ENCODER_FILE = "encoder.json"  # set.json in a release
PARTS = "parts"  # folder in encoder/ with its parts, each as in a release
MAX_SET_BYTES = 1 << 16  # of set.json
MAX_ENTRIES = 64  # parts, settings and packages of a set
# settings on which the vector space does not depend
OUTSIDE_SPACE = ("precision", "trained_on", "batch_size")
# settings that are in the fingerprint only if they have a value
OPTIONAL_SETTINGS = ("options", "pooling", "task")
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
            is_default = key in OPTIONAL_SETTINGS and value is None
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


def parts_beside(facts: Facts, encoder: Path) -> list[str]:
    """Return the parts that are sets beside this one; none if its `encoder` folder carries them."""
    return [] if (encoder / PARTS).is_dir() else facts.parts


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
