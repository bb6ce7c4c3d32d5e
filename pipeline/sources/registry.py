"""Which reader reads which kind of source, and which raw file is what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from pipeline.config import AmazonSource, MmrecSource, Source, TabularSource
from pipeline.sources import amazon2014, amazon2018, amazon2023, image_features, mmrec
from pipeline.sources.product import Product
from pipeline.sources.tabular import Tabular


class Reader(Protocol):
    """What later stages ask of a source: a module of pipeline/sources, or an object that knows its parameters."""

    def ratings(self, raw: Mapping[str, Path]) -> str:
        """Return SQL that selects user, item, rating, timestamp in the file's order; null is what cannot be read."""

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        """Return the file that describes items, if there is one."""

    def lines(self, path: Path) -> Iterator[bytes]:
        """Yield the metadata, a line an item."""

    def wanted(self, asins: list[str]) -> dict[str, int]:
        """Return what metadata calls an item -> item_id."""

    def key(self, line: bytes) -> str | None:
        """Return what a line calls its item, without parsing it; None where that cannot be seen."""

    def parse(self, line: bytes) -> dict[str, Any]:
        """Read a line; ValueError, short and without the line's text, if it cannot be read."""

    def name(self, record: dict[str, Any]) -> str | None:
        """Return what a parsed line calls its item."""

    def product(self, record: dict[str, Any]) -> Product:
        """Pick the fields that items are made of; none is missing, some are empty."""


MODULES = {
    "sample": amazon2014,  # the sticker shop writes Amazon's 2014 format
    "amazon2014": amazon2014,
    "amazon2018": amazon2018,
    "amazon2023": amazon2023,
    "mmrec": mmrec,
}


def reader(source: Source) -> Reader:
    """Return the reader of a source."""
    return Tabular(source) if isinstance(source, TabularSource) else cast(Reader, MODULES[source.kind])


def files(source: AmazonSource | MmrecSource | TabularSource) -> dict[str, list[str]]:
    """Return role -> addresses of the files to download."""
    given = {} if isinstance(source, TabularSource) else source.features
    features = {f"{image_features.FEATURE}{name}": addresses for name, addresses in given.items()}
    if isinstance(source, AmazonSource):
        return {"reviews": source.reviews, "metadata": source.metadata} | features
    items = {"metadata": source.items} if source.items else {}
    return {"interactions": source.interactions} | items | features
