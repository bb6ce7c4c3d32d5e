"""What a release is made of, and the third-party models that made its feature sets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import io
from pipeline.layout import Piece
from pipeline.release.encoder import ReleasedEncoder
from pipeline.release.manifest import Encoder, Input
from pipeline.release.params import Publish
from pipeline.report.outputs import Outputs


@dataclass(frozen=True)
class Parts:
    """The content of a release; empty where a dataset has none."""

    outputs: Outputs
    publish: Publish
    """with the defaults of the source in place of null"""
    items: Iterable[pa.Table]
    """schema RELEASED_ITEMS in batches of rows, readable once"""
    features: Mapping[str, list[Path]]
    pieces: list[Piece] = field(default_factory=list)
    encoders: Mapping[str, ReleasedEncoder] = field(default_factory=dict)
    vector: str = ""
    """sentences on the vectors of the encoder trained here"""
    inputs: list[Input] = field(default_factory=list)
    weights: list[Input] = field(default_factory=list)
    upstream: list[Path] = field(default_factory=list)
    """Parquet files of earlier stages whose parameters and versions the manifest records"""


def networks(features: Mapping[str, list[Path]]) -> dict[str, Encoder]:
    """Return feature set -> its encoder, of those (name -> Parquet files) that a third-party model made."""
    facts = {name: io.record(paths[0]).get("encoder") for name, paths in features.items()}
    return {name: Encoder.model_validate(fact) for name, fact in facts.items() if fact}


def network_rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return the card's rows: feature set, kind, model, revision, library, modalities, prompt, width; parts below."""
    table: list[list[Any]] = []
    for name, one in encoders.items():
        modalities = ", ".join(one.modalities)
        table.append([name, one.kind, one.model, one.revision, one.library, modalities, one.prompt, one.dim or ""])
        table += network_rows({f"{name}: {part.name}": part for part in one.parts})
    return table
