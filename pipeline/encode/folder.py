"""Folder of a feature set: features-*.parquet, set.json, and encoder/ with the files that encode new items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.document import Part
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout

SET, ENCODER = "set.json", "encoder"
LARGEST = 1 << 16  # bytes, of set.json
MOST = 64  # upper bound on parts, settings and packages
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
    settings: Annotated[dict[str, Any], Field(max_length=MOST)]  # of the kind's settings class
    weights: Plain | None = None  # set whose encoder/ has the weights; null: they are in packages
    parts: Annotated[list[Plain], Field(max_length=MOST)] = []  # feature sets that it is derived from, in order
    packages: Annotated[dict[Plain, str], Field(max_length=MOST)] = {}  # package with its weights -> version
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)]  # items per forward pass; affects only rounding
    image_size: Annotated[int, Field(ge=1, le=1 << 16)]  # pixels, upper bound on the shorter side of stored images
    image_quality: Annotated[int, Field(ge=1, le=95)]  # JPEG quality of stored images
    # identifies the vector space, as in the metadata of its files; empty in old releases
    fingerprint: Annotated[dict[str, Any], Field(max_length=MOST)] = {}
    portable: bool = True  # whether this folder and `packages` suffice to encode new items
    # modalities of its columns, in order; empty: all are computed from `reads`
    spans: Annotated[list[Span], Field(max_length=2 * MOST)] = []
    model: Annotated[dict[str, Any], Field(max_length=MOST)] = {}  # provenance of third-party models

    @property
    def network(self) -> str:
        return self.kind or self.encoder


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


def feature_rows(ids: pa.Table, vectors: np.ndarray, has_image: Any, has_text: Any) -> pa.Table:
    """Return rows of schema features(F) from vectors, float32 [n, F], and flags, bool [n], null if unknown."""
    columns = {"item_id": ids["item_id"], "asin": ids["asin"], "has_image": has_image, "has_text": has_text}
    return pa.table(columns | {"vector": io.vectors(vectors)})
