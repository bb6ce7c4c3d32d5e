"""What a release is made of, and whose networks made its feature sets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import io
from pipeline.config.parameters import Shown
from pipeline.facts.outputs import Outputs
from pipeline.layout import Piece
from pipeline.release.encoder import ReleasedEncoder
from pipeline.release.manifest import Encoder, Input
from pipeline.release.params import Publish


@dataclass(frozen=True)
class Parts:
    """The content of a release; empty where a dataset has none."""

    outputs: Outputs
    """the evidence: what the stages found of the dataset"""
    publish: Publish
    """version, licence, creator and so on"""
    items: Iterable[pa.Table]
    """schema RELEASED_ITEMS, some rows at a time, once"""
    interactions: pa.Table
    """schema INTERACTIONS"""
    users: pa.Table
    """schema USERS"""
    features: Mapping[str, list[Path]]
    """feature set -> its Parquet files, in order"""
    pieces: list[Piece] = field(default_factory=list)
    """what other packages put into it, in order"""
    encoders: Mapping[str, ReleasedEncoder] = field(default_factory=dict)
    """feature set -> its encoder"""
    texts: Shown = "all"
    """what `items` says of an item"""
    language: list[str] = field(default_factory=list)
    """ISO 639 codes of the texts that were encoded"""
    with_interactions: bool = False
    """also release interactions and users; they are counted in any case"""
    named_users: bool = False
    """release the users' identifiers, not their numbers alone"""
    half: bool = False
    """also release features as float16"""
    vector: str = ""
    """what the vectors of our own encoder are, in a sentence"""
    inputs: list[Input] = field(default_factory=list)
    """raw files"""
    weights: list[Input] = field(default_factory=list)
    upstream: list[Path] = field(default_factory=list)
    """Parquet files of earlier stages whose parameters and versions the manifest records"""


def networks(features: Mapping[str, list[Path]]) -> dict[str, Encoder]:
    """Return feature set -> its encoder, of those (name -> Parquet files) that were made by somebody's network."""
    facts = {name: io.record(paths[0]).get("encoder") for name, paths in features.items()}
    return {name: Encoder.model_validate(fact) for name, fact in facts.items() if fact}


def network_rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return the card's rows: feature set, kind, model, revision, library, modalities, prompt, width; parts below."""
    table: list[list[Any]] = []
    for name, encoder in encoders.items():
        cells = [encoder.kind, encoder.model, encoder.revision, encoder.library]
        table.append([name, *cells, ", ".join(encoder.modalities), encoder.prompt, encoder.dim or ""])
        table += network_rows({f"{name}: {part.name}": part for part in encoder.parts})
    return table
