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
from pipeline.config.base import Positive, checked, known
from pipeline.config.semantic_ids import Codes, Collisions, Levels
from pipeline.errors import UserError, one_line
from pipeline.semantic_ids.base import Method, Shape
from pipeline.semantic_ids.registry import METHODS

IDS, CODEBOOKS, FACTS = "semantic_ids.parquet", "codebooks.safetensors", "codes.json"
NAMES = (IDS, CODEBOOKS, FACTS)
AGAIN = "make or fetch it again"


class Facts(Section):
    """Content of codes.json: how the codes were made, and how good they are."""

    features: str
    """feature set"""
    features_sha256: str
    """over names and contents of its Parquet files, as io.digest gives it"""
    width: Positive
    """F of the vectors"""
    method: str
    settings: dict[str, Any]
    """of the method"""
    levels: Levels
    codes: Codes
    collisions: Collisions
    seed: int
    history: list[dict[str, Any]] = Field(default_factory=list)
    """of a method that trains: epoch, terms of the loss, and codes used by level"""
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
    raw = io.read_json(folder / FACTS)
    try:
        facts = checked(Facts, raw)
        known([facts.method], METHODS, "method")
    except UserError as e:
        raise UserError(f"{folder / FACTS}: {e}") from None
    path = folder / CODEBOOKS
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {AGAIN}") from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as e:
        raise UserError(f"{path}: not readable ({one_line(e)}); {AGAIN}") from None
    try:
        method = METHODS[facts.method].of(tensors, facts.shape)
        of_width(method, facts)
    except UserError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None
    return Coded(facts, method)


def of_width(method: Method, facts: Facts) -> None:
    """Raise UserError for codebooks of another width than codes.json says."""
    width = method.decode(np.zeros((1, facts.levels), np.int32)).shape[1]
    if width != facts.width:
        raise UserError(f"the codebooks are for vectors of width {width}, {FACTS} says {facts.width}")


def matrix(ids: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the coded items' rows, int64 [n], and their codes, int32 [n, L], of a table of semantic IDs."""
    column = ids["codes"].combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return rows, column.drop_null().flatten().to_numpy().reshape(len(rows), column.type.list_size)
