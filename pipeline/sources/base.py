"""Base classes of sources, readers and products, registry of sources, and section `download` of
params.yaml.
"""

import itertools
import json
import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self
from urllib.parse import urlsplit

import orjson
from pydantic import Field, model_validator

from alignrec.pipeline import io
from alignrec.pipeline.io.csv_rows import find_delimiter
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.json_rows import column_names, json_lines, json_object, refuse_repeated
from alignrec.pipeline.runtime.registry import Registry, fault_of_class
from alignrec.pipeline.runtime.section import Address, Name, Rate, Section, nearest, validate
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.vectors.formats import FEATURE, ROWS, format_of, raw_files
from alignrec.pipeline.web.download import local_path

NOT_A_PATH = re.compile(
    r"(?!file:)[a-z][a-z0-9+.-]*://|//|(?:about|blob|data|javascript|mailto):", re.IGNORECASE
)

# years 1990 to 2100: other numbers are positions, placeholders or of another unit
EARLIEST_SECONDS = 631_152_000
LATEST_SECONDS = 4_102_444_800

MAX_PATH_CHARACTERS = 4096  # of systems
MAX_RETRIES = 100
SENTENCE_ENDS = ".!?"


class Product(NamedTuple):
    """An item's metadata as in the source, before cleaning; absent fields are empty."""

    title: str
    brand: str
    categories: list[str]  # path from the root
    description: str
    image_urls: list[str]  # candidates, best first
    extra: dict[str, str]  # the source's other fields: name -> JSON


def is_path(address: str) -> bool:
    return NOT_A_PATH.match(address) is None


def is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)  # drops line feeds and tabs, so a path may look like an address
        return not is_path(address) and parts.scheme in ("http", "https") and bool(parts.netloc)
    except ValueError:  # such as http://[
        return False


def spellings(path: str) -> list[str]:
    """Return a path, and the Unicode normal forms in which file systems may have it."""
    if path.isascii() or len(path) > MAX_PATH_CHARACTERS:  # long runs of marks take minutes
        return [path]
    forms = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
    return list(dict.fromkeys([path, *forms]))


def as_text(value: Any) -> str:
    return " ".join(as_list(value)) if isinstance(value, list) else _describe_scalar(value)


def as_list(value: Any) -> list[str]:
    """Return the texts and numbers of a nested list, or a single one, that are not blank."""
    return [text for text in map(_describe_scalar, _flatten(value)) if text.strip()]


def holds_object(value: Any) -> bool:
    """Return whether `as_list` leaves out an object of a value."""
    return any(isinstance(part, dict) for part in _flatten(value))


def _flatten(value: Any) -> Iterator[Any]:
    """Yield the values of nested lists, in order."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack.extend(reversed(part))
        else:
            yield part


def _describe_scalar(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def end_sentence(text: str) -> str:
    return text if not text or text[-1] in SENTENCE_ENDS else f"{text}."


def extra_fields(record: dict[Any, Any], kept: Collection[str]) -> dict[str, str]:
    """Return the non-empty fields not in `kept` as JSON.

    Raises ValueError if one is nested too deeply.
    """
    fields = {}
    for key, value in record.items():
        is_empty = value is None or value in ("", [], {})
        if key in kept or is_empty:
            continue
        name = key if isinstance(key, str) else repr(key)
        fields[_without_surrogates(name)] = as_json(value)
    return fields


def as_json(value: Any) -> str:
    with suppress(TypeError):  # for a value without a JSON type
        return orjson.dumps(value).decode()
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_describe_value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except TypeError:
        raise ValueError("a key that is no text") from None
    return _without_surrogates(text)


def _describe_value(value: Any) -> Any:
    """Return a value that JSON has, for one that it lacks."""
    return sorted(value, key=repr) if isinstance(value, set) else repr(value)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


# to add a source, write a subclass of Source in its own file, and register it here
SOURCES: Registry[type[Source]] = Registry(
    "sources",
    {
        "sample": "alignrec.pipeline.sources.sample:SampleSource",
        "amazon2014": "alignrec.pipeline.sources.amazon:AmazonSource",
        "amazon2018": "alignrec.pipeline.sources.amazon:AmazonSource",
        "amazon2023": "alignrec.pipeline.sources.amazon:Amazon2023",
        "mmrec": "alignrec.pipeline.sources.mmrec:MmrecSource",
        "tabular": "alignrec.pipeline.sources.tabular:TabularSource",
    },
    partial(fault_of_class, base=Source),
)  # kind -> source


def is_column(name: str, address: str) -> bool:
    """Return whether a file has a column; false for files that are not on this machine."""
    path = local_path(address)
    return path is not None and path.is_file() and name in column_names(path, [name])


class Download(Section):
    """Section `download`: download of raw files."""

    speed: ClassVar[frozenset[str]] = frozenset({"retries", "timeout"})

    timeout: Rate = 30.0
    """seconds without a byte before an attempt is given up"""
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = 5
    """attempts after the first, with exponential back-off"""


class Reader:
    """Reader of a source's raw files; `raw` maps roles to paths.

    By default, metadata is JSON lines or delimited text with a header. Subclasses implement
    `ratings` and `name`, and override `product` where their fields have other names.
    """

    kept: frozenset[str] = frozenset()  # fields that `product` uses
    item_columns: Mapping[str, str] = {
        "title": "title",
        "brand": "brand",
        "categories": "categories",
        "description": "description",
        "image_urls": "imUrl",
    }  # role -> field of the metadata; a role that is made of several fields is absent
    appended: Sequence[str] = ()  # fields that `product` appends to the description
    pattern: re.Pattern[bytes] | None = None  # matches the item identifier in a line
    # maximum share of times that are not of the years 1990 to 2100; None: any time is right
    max_undated: float | None = None
    clock: str = "unix"  # what timestamps are: unix, order or none, as in `InterFile`

    @abstractmethod
    def ratings(self, raw: Mapping[str, Path]) -> str:
        """Return SQL that selects user, item, rating and timestamp (s) in file order.

        Unreadable values are null.
        """

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        """Return the file of item metadata, or None if the source has none.

        UserError if two of its columns have the name of a field.
        """
        path = raw.get("metadata")
        if path is not None and (path.suffix == ".parquet" or find_delimiter(path) is not None):
            fields = {*self.item_columns.values(), *self.kept}
            refuse_repeated(path, column_names(path), sorted(fields))
        return path

    def lines(self, path: Path) -> Iterator[bytes]:
        """Yield the metadata of one item per line, as bytes."""
        return json_lines(path)

    def wanted(self, asins: list[str]) -> dict[str, int]:
        """Return a mapping from identifiers in the metadata to item ids.

        `asins` are the items in order of id.
        """
        return {asin: i for i, asin in enumerate(asins)}

    def key(self, line: bytes) -> str | None:
        """Return a line's item identifier without parsing it, or None if that is not possible."""
        match = self.pattern.search(line) if self.pattern else None
        return match[1].decode(errors="replace") if match else None

    def parse(self, line: bytes) -> dict[str, Any]:
        """Parse a line; ValueError, with a short message without the line's text, if that fails."""
        return json_object(line)

    def first_records(self, path: Path, lines: int) -> Iterator[dict[str, Any]]:
        """Yield the records of the first lines; stage `items` counts those that are unreadable."""
        for line in itertools.islice(self.lines(path), lines):
            with suppress(ValueError):
                yield self.parse(line)

    @abstractmethod
    def name(self, record: dict[str, Any]) -> str | None:
        """Return the item identifier of a parsed line, or None if it has none."""

    def product(self, record: dict[str, Any]) -> Product:
        """Convert a parsed line to a Product; fields not in `kept` go to its `extra`."""
        return Product(
            title=as_text(record.get("title")),
            brand=as_text(record.get("brand")),
            categories=as_list(record.get("categories")),
            description=as_text(record.get("description")),
            image_urls=as_list(record.get("imUrl")),
            extra=extra_fields(record, self.kept),
        )


class Generated(Source):
    """A source that brings its raw files."""

    @abstractmethod
    def make(self, raw: Path, progress: Callable[[list[str]], Iterable[str]]) -> dict[str, str]:
        """Write the raw files into `raw` and return role -> file name.

        `progress` wraps names in a progress bar.
        """


class Downloaded(Source):
    """A source whose raw files, including optional feature files, are downloaded."""

    sha256: dict[str, str] = {}
    """role of a file -> expected sha256, hex"""

    features: dict[Name, Address] = {}
    """feature set -> its file; docs/compare.md lists the formats"""
    feature_rows: Address | None = None
    """mapping file for feature files without identifiers, such as MMRec's i_id_mapping.csv: columns
    of identifiers and rows 0, 1, 2, ...; by default row i is item i"""

    def feature_files(self) -> dict[str, str]:
        rows = {ROWS: self.feature_rows} if self.feature_rows else {}
        return {f"{FEATURE}{name}": address for name, address in self.features.items()} | rows

    @model_validator(mode="after")
    def _order_is_known(self) -> Self:
        if self.has_split or self.feature_rows:
            return self
        for name, address in self.features.items():
            if format_of(address) == "npy":
                raise ValueError(
                    f"features.{name}: its rows name no items; map them by feature_rows: item, row"
                )
        return self

    @abstractmethod
    def files(self) -> dict[str, str]:
        """Return role -> address.

        The role of a feature file is FEATURE and its name.
        """


def downloaded_files(sources: Path) -> dict[str, Path]:
    """Return role -> path of the downloaded files; raise UserError if one is missing."""
    files = raw_files(sources)
    if not files:
        raise UserError(f"{sources.parent}: not downloaded; {io.made_by(sources)}")
    for (
        path
    ) in files.values():  # after a failed download, `sources.json` lists files that are absent
        if not path.is_file():
            raise UserError(f"{path}: not downloaded; {io.made_by(sources)}")
    return files


def declared_source(raw: Any, where: str) -> Source:
    """Validate an entry of `sources`; raise UserError for an unknown kind or invalid keys."""
    if isinstance(raw, Source):
        return raw
    if not isinstance(raw, dict) or "kind" not in raw:
        raise UserError(f"'{where}.kind' is required; valid: {', '.join(SOURCES)}")
    kind = raw["kind"]
    if not isinstance(kind, str) or kind not in SOURCES:
        kind_name = one_line(kind, 64)
        raise UserError(f"'{where}.kind': no '{kind_name}'{nearest(str(kind), SOURCES)}")
    return validate(SOURCES[kind], raw, where)
