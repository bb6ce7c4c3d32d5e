"""A fuzz target: a parser, its seeds, and the errors that it may raise."""

import importlib
import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline.io.errors import UserError
from alignrec.schemas import ContractError


class Target(NamedTuple):
    """A parser of any bytes, which may raise refusals; other exceptions are bugs."""

    read: Callable[[bytes], object]
    others: Sequence[bytes]  # first a sound input, then those that may be read or refused
    refusals: tuple[type[Exception], ...] = ()  # besides UserError and ContractError, rejects of its caller
    quick: int = 10  # mutations in `make test`; fewer where an input takes a tenth of a second
    refused: Sequence[bytes] = ()  # inputs that must be refused in one line

    @property
    def seeds(self) -> list[bytes]:
        return [*self.others, *self.refused]

    @property
    def all_refusals(self) -> tuple[type[Exception], ...]:
        return (UserError, ContractError, *self.refusals)


def feed(target: Target, data: bytes) -> None:
    with suppress(*target.all_refusals):
        target.read(data)


_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")


def written(name: str, data: bytes) -> Path:
    path = Path(_FOLDER.name) / name
    path.write_bytes(data)
    return path


def table(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def folder(name: str) -> Path:
    path = Path(_FOLDER.name) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def restored(name: str, source: Path) -> Path:
    """Return a fresh copy of a folder, without what earlier inputs left."""
    path = folder(name)
    shutil.rmtree(path)
    return shutil.copytree(source, path)


def encoded(texts: Sequence[str | bytes | None]) -> list[bytes]:
    return [t if isinstance(t, bytes) else t.encode("utf-8", "surrogatepass") for t in texts if t is not None]


AREAS = ("products", "interactions", "arrays", "releases")
"""modules next to this one"""


def targets(area: str) -> dict[str, Target]:
    """Return the targets of a module by name, made on request, as some take seconds."""
    made: dict[str, Target] = importlib.import_module(f"tests.hostile.fuzz.{area}").targets()
    return made
