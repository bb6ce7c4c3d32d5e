"""The three files of semantic IDs: semantic_ids.parquet, codebooks.safetensors, and codes.json, which explains both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pipeline import io
from pipeline.config import Section
from pipeline.config.semantic_ids import Collisions
from pipeline.errors import UserError
from pipeline.semantic_ids.base import Method, Shape
from pipeline.semantic_ids.registry import METHODS

IDS, CODEBOOKS, FACTS = "semantic_ids.parquet", "codebooks.safetensors", "codes.json"


class Facts(Section):
    """Content of codes.json: how the codes were made, and how good they are."""

    features: str
    """feature set"""
    features_sha256: str
    """over names and contents of its Parquet files, as io.digest gives it"""
    width: int
    """F of the vectors"""
    method: str
    settings: dict[str, Any]
    """of the method"""
    levels: int
    codes: int
    collisions: Collisions
    seed: int
    quality: dict[str, Any] = Field(default_factory=dict)
    """see pipeline/semantic_ids/quality.py"""

    @property
    def shape(self) -> Shape:
        """L and K."""
        return Shape(self.levels, self.codes)


class Coded(NamedTuple):
    """Codebooks and what made them."""

    facts: Facts
    method: Method


def write_codebooks(folder: Path, method: Method) -> None:
    """Write codebooks.safetensors: equal codebooks give equal bytes."""
    arrays = {name: np.ascontiguousarray(x) for name, x in sorted(method.tensors().items())}
    io.write_bytes(folder / CODEBOOKS, save(arrays))


def write_facts(folder: Path, facts: Facts) -> None:
    """Write codes.json."""
    io.write_json(folder / FACTS, facts.model_dump(mode="json"))


def load(folder: Path) -> Coded:
    """Read codebooks and what made them.

    Raises:
        UserError: a file is missing or damaged, or the method is unknown.
    """
    facts = Facts.model_validate(io.read_json(folder / FACTS))
    if facts.method not in METHODS:
        raise UserError(f"{folder / FACTS}: no method '{facts.method}'; there are {', '.join(METHODS)}")
    try:
        tensors = load_file(folder / CODEBOOKS)
    except (OSError, SafetensorError) as e:
        raise UserError(f"{folder / CODEBOOKS}: not readable ({e})") from None
    return Coded(facts, METHODS[facts.method].of(tensors, facts.shape))


def matrix(ids: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the coded items' rows, int64 [n], and their codes, int32 [n, L], of a table of semantic IDs."""
    column = ids["codes"].combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return rows, column.drop_null().flatten().to_numpy().reshape(len(rows), column.type.list_size)
