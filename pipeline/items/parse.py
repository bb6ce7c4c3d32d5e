"""Metadata lines -> clean products of the wanted items, on all cores where there are many.

Lines of other items are not even parsed, where their identifier can be seen without.
"""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections.abc import Collection, Container, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from pipeline import pool
from pipeline.sources.base import Reader, Source
from pipeline.sources.product import Product, is_path
from pipeline.sources.registry import reader

LONGEST_LINE = 16 << 20  # bytes; real lines stay below 1 MiB
BATCH = 2048  # lines a job of a process
MANY = 50_000  # wanted items from which other processes are worth their half a second of start

_HIDDEN = re.compile(r"<(script|style)\b[^>]*>.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")  # "a < b" is no tag
# What scraping cut, as in Amazon's files of 2018. Nothing is scanned beyond the next angle bracket.
_ATTRIBUTE = r"""(?<![\w-])[A-Za-z][\w:-]*+\s?=\s?(?:"[^"<>]*"|'[^'<>]*')"""
_ELEMENT = (
    r"(?:a|abbr|b|big|blockquote|br|center|code|dd|div|dl|dt|em|font|h[1-6]|hr|i|iframe|img|input|li|ol|p|pre|s|script|"
    r"section|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul|video)"
)
_CUT = re.compile(
    rf"<{_ELEMENT}(?:\s+{_ATTRIBUTE})+(?:\s*/)?"  # <span class="a-color-secondary"
    rf"|<{_ELEMENT}\s[^<>]*=\s?[\"'][^<>\"']*\Z"  # <span class="a-col
    rf"|<{_ELEMENT}\s*/?\Z"  # <br
    r"|</(?:[A-Za-z][A-Za-z0-9]*)?\s*\Z"  # </p
    rf"|(?:{_ATTRIBUTE}\s*)+/?>"  # alt="Magazines"/>
    r"|[\"']\s*/>",  # Magazines" />
    re.IGNORECASE,
)
_LEFT_OVER = re.compile(r"[\s.,:;\"'/>]*")  # a text of nothing but this was markup
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]+")
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\ufeff\ufffd\ufffe\uffff\ud800-\udfff\s]+"
)


class Line(NamedTuple):
    """One line of metadata and its number in the file, from 1."""

    number: int
    raw: bytes


class Parsed(NamedTuple):
    """A product of a wanted item."""

    name: str  # what the source calls the item
    product: Product  # clean


class Skipped(NamedTuple):
    """A line that can be read but is not needed."""

    reason: str


class Reject(NamedTuple):
    """A line that cannot be read."""

    line: Line
    reason: str


Outcome = Parsed | Skipped | Reject
"""of reading one line"""


class Lines:
    """The lines that may be of wanted items; counts all lines."""

    def __init__(self, lines: Iterable[bytes], reader: Reader, wanted: Container[str]) -> None:
        self._lines, self._key, self._wanted = lines, reader.key, wanted
        self.total = self.other = 0

    def __iter__(self) -> Iterator[Line]:
        key, wanted = self._key, self._wanted
        for number, raw in enumerate(self._lines, start=1):
            self.total = number
            name = key(raw)
            if name is None or name in wanted or len(raw) > LONGEST_LINE:
                yield Line(number, raw)
            else:
                self.other += 1


class Parser:
    """Reads batches of lines, here or in another process."""

    def __init__(self, source: Source, wanted: Container[str]) -> None:
        self._source, self._wanted = source, wanted

    def __call__(self, batch: list[Line]) -> list[Outcome]:
        """Read each line."""
        source_reader = reader(self._source)
        return [read(line, source_reader, self._wanted) for line in batch]


def products(lines: Iterable[Line], source: Source, wanted: Collection[str], workers: int | None) -> Iterator[Outcome]:
    """Yield the outcome of each line, in the lines' order.

    Args:
        lines: in the file's order.
        source: says which reader the lines need.
        wanted: what the source calls the items that are wanted.
        workers: processes; None: as many as there are cores if the wanted items are many.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) if len(wanted) >= MANY else 1
    rest = iter(lines)
    batches = iter(lambda: list(islice(rest, BATCH)), [])
    parse = Parser(source, wanted)
    done = map(parse, batches) if workers == 1 else (r for _, r in pool.in_order(parse, batches, workers, torch=False))
    for outcomes in done:
        yield from outcomes


def read(line: Line, reader: Reader, wanted: Container[str]) -> Outcome:
    """Return the outcome of one line."""
    if not line.raw.strip():
        return Skipped("blank_line")
    if len(line.raw) > LONGEST_LINE:
        return Reject(line, "line too long")
    try:
        record = reader.parse(line.raw)
        name = reader.name(record)
        if name is None:
            return Reject(line, "no item identifier")
        if name not in wanted:
            return Skipped("other_item")
        return Parsed(name, cleaned(reader.product(record)))
    except ValueError as e:
        return Reject(line, str(e))


def cleaned(product: Product) -> Product:
    """Return a product with clean text and addresses; other fields stay as the source has them."""
    return Product(
        title=clean(product.title),
        brand=clean(product.brand),
        categories=[c for c in map(clean, product.categories) if c],
        description=clean(product.description),
        image_urls=list(dict.fromkeys(_addresses(product.image_urls))),
        extra=product.extra,
    )


def clean(text: str) -> str:
    """Return text without markup, entities, control characters and repeated whitespace, in Unicode's NFC."""
    if "&" in text or "<" in text or ">" in text:
        text = _without_markup(text)
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", _CONTROL.sub(" ", text))
    text = text.strip(" ")  # no other blanks are left
    return " ".join(text.split()) if "  " in text else text


def _without_markup(text: str) -> str:
    for _ in range(3):  # "&amp;lt;br&amp;gt;" occurs in real data: a tag under two layers of entities
        resolved = html.unescape(text)
        plain = _CUT.sub(" ", _TAG.sub(" ", _HIDDEN.sub(" ", resolved)))
        if plain != resolved and _LEFT_OVER.fullmatch(plain):
            return ""
        if plain == text:
            break
        text = plain
    return text


def _addresses(urls: list[str]) -> Iterator[str]:
    for url in urls:
        if is_path(url.strip()):  # names of files may have blanks and ampersands
            yield _UNPRINTABLE.sub("", url).strip()
            continue
        plain = _CONTROL.sub("", html.unescape(url))
        yield f"https:{plain}" if plain.startswith("//") else plain
