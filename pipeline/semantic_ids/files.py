"""The three files of semantic IDs: semantic_ids.parquet, codebooks.safetensors, and codes.json, which explains both."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field
from safetensors.numpy import save

from pipeline import io
from pipeline.config.base import Positive, Section, checked, known
from pipeline.errors import UserError, not_installed, one_line
from pipeline.ops import arrays
from pipeline.ops.arrays import AGAIN
from pipeline.semantic_ids.base import Method, Shape
from pipeline.semantic_ids.figures import bounded
from pipeline.semantic_ids.params import Codes, Collisions, Levels
from pipeline.semantic_ids.registry import METHODS

IDS, CODEBOOKS, FACTS = "semantic_ids.parquet", "codebooks.safetensors", "codes.json"
NAMES = (IDS, CODEBOOKS, FACTS)
LARGEST_FACTS, SMALL = 64 << 20, 1 << 30
"""bytes: a larger codes.json is refused unread; so are larger codebooks, unless L * K * F numbers take as much"""


class Facts(Section):
    """Content of codes.json: how the codes were made, and how good they are."""

    features: str
    features_sha256: str
    """over names and contents of its Parquet files, as io.digest gives it"""
    width: Positive
    method: str
    settings: dict[str, Any]
    levels: Levels
    codes: Codes
    collisions: Collisions
    seed: int
    history: list[dict[str, Any]] = Field(default_factory=list)
    """of a method that trains: epoch, terms of the loss, and codes used by level"""
    quality: Annotated[dict[str, Any], AfterValidator(bounded)] = Field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        return Shape(self.levels, self.codes)


def how_to_make(dataset: str, features: Sequence[str]) -> str:
    key = f"semantic_ids: {{features: [{', '.join(features)}]}}"
    return f"set `{key}` in the parameter file and run `alignrec semantic_ids {dataset}`"


class Coded(NamedTuple):
    """Codebooks and what made them."""

    facts: Facts
    method: Method


def write_codebooks(folder: Path, method: Method) -> None:
    arrays = {name: np.ascontiguousarray(x) for name, x in sorted(method.tensors().items())}
    io.write_bytes(folder / CODEBOOKS, save(arrays))


def write_facts(folder: Path, facts: Facts) -> None:
    io.write_json(folder / FACTS, facts.model_dump(mode="json"))


def load(folder: Path) -> Coded:
    made = facts(folder)
    try:
        known([made.method], METHODS, "method")
        kind = METHODS[made.method]
    except UserError as e:
        raise UserError(f"{folder / FACTS}: {e}") from None
    except ModuleNotFoundError as e:
        raise (not_installed(e) or e) from None
    return Coded(made, _fit(kind, folder / CODEBOOKS, made, codebooks(folder, made)))


def facts(folder: Path) -> Facts:
    path = folder / FACTS
    raw = io.read_json(path, LARGEST_FACTS)
    try:
        return checked(Facts, raw)
    except UserError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None


def codebooks(folder: Path, made: Facts) -> dict[str, np.ndarray]:
    """Read codebooks.safetensors; UserError if missing, damaged, too large for this shape, or not finite."""
    path = folder / CODEBOOKS
    most = max(SMALL, 8 * made.levels * made.codes * made.width)
    if path.is_file() and (size := path.stat().st_size) > most:
        raise UserError(f"{path}: {size:,} bytes; codebooks of this shape take {most:,} at most")
    tensors = arrays.read(path)
    for name, x in tensors.items():
        if not np.isfinite(x).all():
            raise UserError(f"{path}: tensor '{one_line(name, 64)}' holds values that are not finite; {AGAIN}")
    return tensors


def check_codebooks(folder: Path, made: Facts) -> None:
    """Refuse damaged codebooks, and, where the method is known and installed, those that do not fit codes.json."""
    tensors = codebooks(folder, made)
    with suppress(ModuleNotFoundError):
        if made.method in METHODS:
            _fit(METHODS[made.method], folder / CODEBOOKS, made, tensors)


def _fit(kind: type[Method], path: Path, made: Facts, tensors: dict[str, np.ndarray]) -> Method:
    """Return the method with its codebooks, which have coded and decoded a vector; UserError if they do not fit."""
    try:
        method = kind.from_tensors(tensors, made.shape)
        of_width(method, made)
        codes = method.encode(np.eye(1, made.width, dtype=np.float32))
    except UserError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise UserError(f"{path}: does not fit {FACTS} ({one_line(e)}); {AGAIN}") from None
    if codes.shape != (1, made.levels) or codes.min() < 0 or codes.max() >= made.codes:
        raise UserError(f"{path}: does not fit {FACTS} (codes {codes.tolist()}); {AGAIN}")
    return method


def of_width(method: Method, facts: Facts) -> None:
    width = method.decode(np.full((1, facts.levels), facts.codes - 1, np.int32)).shape[1]
    if width != facts.width:
        raise UserError(f"the codebooks are for vectors of width {width}, {FACTS} says {facts.width}")


def matrix(ids: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the coded items' rows, int64 [n], and their codes, int32 [n, L], of a table of semantic IDs."""
    column = ids["codes"].combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return rows, column.drop_null().flatten().to_numpy().reshape(len(rows), column.type.list_size)
