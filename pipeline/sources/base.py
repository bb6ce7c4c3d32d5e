"""Interface of sources: parameters, files, reader, licence."""

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from pipeline import io
from pipeline.config.parameters import Source
from pipeline.errors import UserError
from pipeline.sources.product import Product

PLANTED = "planted.parquet"  # what a generator planted in interactions, table PLANTED; a control, not in `sources.json`


class Reader(Protocol):
    """The interface that later stages use: a module of pipeline/sources, or an object with parameters."""

    def ratings(self, raw: Mapping[str, Path]) -> str:
        """Return SQL that selects user, item, rating, timestamp in the file's order; unreadable values are null."""

    def metadata(self, raw: Mapping[str, Path]) -> Path | None: ...

    def lines(self, path: Path) -> Iterator[bytes]: ...

    def wanted(self, asins: list[str]) -> dict[str, int]:
        """Return the metadata's identifier of each item -> item_id."""

    def key(self, line: bytes) -> str | None:
        """Return a line's item identifier without parsing the line; None where that is impossible."""

    def parse(self, line: bytes) -> dict[str, Any]:
        """Read a line; ValueError, short and without the line's text, if it cannot be read."""

    def name(self, record: dict[str, Any]) -> str | None: ...

    def product(self, record: dict[str, Any]) -> Product: ...


class Generated(Source):
    """A source that generates its raw files."""

    @abstractmethod
    def make(self, raw: Path, progress: Callable[[list[str]], Iterable[str]]) -> dict[str, str]:
        """Write the raw files; return role -> file name in `raw`."""


class Downloaded(Source):
    """A source whose raw files are downloaded."""

    sha256: dict[str, str] = {}
    """role of a file -> hex digest that it must have"""

    def reader(self) -> Reader:
        return cast(Reader, sys.modules[type(self).__module__])

    def dims(self) -> dict[str, int]:
        return {}

    @abstractmethod
    def files(self) -> dict[str, list[str]]:
        """Return role -> addresses of the file, tried in order; a feature file's role is FEATURE and its name."""


def raw_files(sources: Path) -> dict[str, Path]:
    return {row["role"]: sources.parent / row["name"] for row in io.read_json(sources)}


def raw_dims(sources: Path) -> dict[str, int]:
    return {row["role"]: row["dim"] for row in io.read_json(sources) if "dim" in row}


def downloaded(sources: Path) -> dict[str, Path]:
    """Return role -> path; UserError if one is missing: `sources.json` keeps checksums when a download fails."""
    files = raw_files(sources)
    absent = next((path for path in files.values() if not path.is_file()), None if files else sources.parent)
    if absent is not None:
        raise UserError(f"{absent}: not downloaded; {io.made_by(sources)}")
    return files
