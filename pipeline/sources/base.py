"""Interface of sources (parameters, files, reader), their registry, and section `download` of params.yaml.

A new source is a file with a subclass of Source, and an entry in SOURCES.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from alignrec.pipeline import io
from alignrec.pipeline.config.base import Mirrors, Name, Rate, Section, checked, nearest
from alignrec.pipeline.config.parameters import Source
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.harness.registry import Registry
from alignrec.pipeline.sources.delimited import json_lines
from alignrec.pipeline.sources.feature_files import FEATURE, ROWS, format_of
from alignrec.pipeline.sources.lines import json_object
from alignrec.pipeline.sources.product import Product, as_list, as_text, others

PLANTED = "planted.parquet"  # what a generator planted in interactions, table PLANTED; a control, not in `sources.json`

SOURCES: Registry[type[Source]] = Registry(
    "sources",
    {
        "sample": "alignrec.pipeline.sources.sample:SampleSource",
        "amazon2014": "alignrec.pipeline.sources.amazon:Amazon2014",
        "amazon2018": "alignrec.pipeline.sources.amazon:Amazon2018",
        "amazon2023": "alignrec.pipeline.sources.amazon:Amazon2023",
        "mmrec": "alignrec.pipeline.sources.mmrec:MmrecSource",
        "tabular": "alignrec.pipeline.sources.tabular:TabularSource",
    },
)  # kind -> source


class Download(Section):
    """Fetching raw files."""

    speed: ClassVar[frozenset[str]] = frozenset({"retries", "timeout"})

    timeout: Rate = 30.0  # seconds without a byte before a try is given up
    retries: Annotated[int, Field(ge=0)] = 5  # tries after the first, with exponential back-off


class Reader:
    """Reads the raw files of a source: by default JSON lines, or text with a header."""

    kept: frozenset[str] = frozenset()  # fields that `product` reads; the others are its `extra`
    pattern: re.Pattern[bytes] | None = None  # finds the item identifier of a line

    @abstractmethod
    def ratings(self, raw: Mapping[str, Path]) -> str:
        """Return SQL that selects user, item, rating, timestamp in the file's order; unreadable values are null."""

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        return raw.get("metadata")

    def lines(self, path: Path) -> Iterator[bytes]:
        return json_lines(path)

    def wanted(self, asins: list[str]) -> dict[str, int]:
        """Return the metadata's identifier of each item -> item_id."""
        return {asin: i for i, asin in enumerate(asins)}

    def key(self, line: bytes) -> str | None:
        """Return a line's item identifier without parsing the line; None where that is impossible."""
        match = self.pattern.search(line) if self.pattern else None
        return match[1].decode(errors="replace") if match else None

    def parse(self, line: bytes) -> dict[str, Any]:
        """Read a line; ValueError, short and without the line's text, if it cannot be read."""
        return json_object(line)

    @abstractmethod
    def name(self, record: dict[str, Any]) -> str | None: ...

    def product(self, record: dict[str, Any]) -> Product:
        return Product(
            title=as_text(record.get("title")),
            brand=as_text(record.get("brand")),
            categories=as_list(record.get("categories")),
            description=as_text(record.get("description")),
            image_urls=as_list(record.get("imUrl")),
            extra=others(record, self.kept),
        )


class Generated(Source):
    """A source that generates its raw files."""

    @abstractmethod
    def make(self, raw: Path, progress: Callable[[list[str]], Iterable[str]]) -> dict[str, str]:
        """Write the raw files; return role -> file name in `raw`."""


class Downloaded(Source):
    """A source whose raw files are downloaded; features may come with it."""

    sha256: dict[str, str] = {}  # role of a file -> hex digest that it must have

    features: dict[Name, Mirrors] = {}  # feature set name -> its file; docs/compare.md has all formats
    # mapping file for files without identifiers, such as MMRec's i_id_mapping.csv: a column of identifiers, one of
    # rows 0, 1, 2, ...; without it row i is item i
    feature_rows: Mirrors | None = None

    def feature_files(self) -> dict[str, list[str]]:
        rows = {ROWS: self.feature_rows} if self.feature_rows else {}
        return {f"{FEATURE}{name}": mirrors for name, mirrors in self.features.items()} | rows

    @model_validator(mode="after")
    def _order_is_known(self) -> Self:
        for name, mirrors in {} if self.has_split or self.feature_rows else self.features.items():
            if format_of(mirrors[0]) == "npy":
                raise ValueError(
                    f"features.{name}: its rows name no items; give feature_rows, a mapping file: item, row"
                )
        return self

    @abstractmethod
    def files(self) -> dict[str, list[str]]:
        """Return role -> addresses of the file, tried in order; a feature file's role is FEATURE and its name."""


def raw_files(sources: Path) -> dict[str, Path]:
    return {row["role"]: sources.parent / row["name"] for row in io.read_json(sources)}


def downloaded_files(sources: Path) -> dict[str, Path]:
    """Return role -> path; UserError if one is missing: `sources.json` keeps checksums when a download fails."""
    files = raw_files(sources)
    absent = next((path for path in files.values() if not path.is_file()), None if files else sources.parent)
    if absent is not None:
        raise UserError(f"{absent}: not downloaded; {io.made_by(sources)}")
    return files


def declared_source(raw: Any, where: str) -> Source:
    """Return a source from its entry under `sources`; UserError for an unknown kind, or what the kind refuses."""
    if isinstance(raw, Source):
        return raw
    if not isinstance(raw, dict) or "kind" not in raw:
        raise UserError(f"'{where}.kind' is required; valid: {', '.join(SOURCES)}")
    if not isinstance(raw["kind"], str) or raw["kind"] not in SOURCES:
        raise UserError(f"'{where}.kind': no '{one_line(raw['kind'], 64)}'{nearest(str(raw['kind']), SOURCES)}")
    return checked(SOURCES[raw["kind"]], raw, where)
