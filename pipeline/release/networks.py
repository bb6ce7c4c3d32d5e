"""Whose networks made the feature sets of a release, as the features' own metadata says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.release.manifest import Encoder


def read(features: Mapping[str, list[Path]]) -> dict[str, Encoder]:
    """Return feature set -> its encoder, of those that were made by somebody's network.

    Args:
        features: feature set -> its Parquet files.
    """
    records = {name: pq.read_schema(paths[0]).metadata or {} for name, paths in features.items()}
    facts = {name: json.loads(record.get(b"alignrec", b"{}")).get("encoder") for name, record in records.items()}
    return {name: Encoder.model_validate(fact) for name, fact in facts.items() if fact}


def rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return the card's rows: feature set, kind, model, revision, library, modalities, prompt, width; parts below."""
    table: list[list[Any]] = []
    for name, encoder in encoders.items():
        cells = [encoder.kind, encoder.model, encoder.revision, encoder.library]
        table.append([name, *cells, ", ".join(encoder.modalities), encoder.prompt, encoder.dim or ""])
        table += rows({f"{name}: {part.name}": part for part in encoder.parts})
    return table
