"""Parse metadata lines into clean products of the wanted items, in parallel if there are many."""

import html
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import NamedTuple

from alignrec.pipeline.io.text import MAX_LINE_BYTES, MAX_RAW_BYTES, RejectedRow
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.base import Product, Reader, holds_object, is_path
from alignrec.schemas import TEXT_FIELDS

LINES_PER_BATCH = 2048  # of a job
MAX_ADDRESSES = 1000  # image addresses per item
# per item: seconds to clean in the worst case; real items have up to 100,000
MAX_TEXT_CHARACTERS = 1 << 20
# wanted items from which processes repay their start-up of half a second
MIN_ITEMS_FOR_PROCESSES = 50_000
MAX_UNESCAPES = 3  # real data contain tags that are escaped twice: "&amp;lt;br&amp;gt;"

# Each expression takes linear time: nothing is scanned twice.
_HIDDEN = re.compile(
    r"<(script|style)\b[^<>]*>.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)", re.IGNORECASE | re.DOTALL
)
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")  # does not match "a < b"
# Markup cut by scraping, as in Amazon's 2018 files. Matches never extend beyond the next angle
# bracket.
_ATTRIBUTE = r"""(?<![\w:-])[A-Za-z][\w:-]*+\s?=\s?(?:"[^"<>]*"|'[^'<>]*')"""
_ELEMENT = (
    r"(?:a|abbr|b|big|blockquote|br|center|code|dd|div|dl|dt|em|font|h[1-6]|hr|i|iframe|img|input|"
    r"li|ol|p|pre|s|script|section|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|"
    r"tr|tt|u|ul|video)"
)
_CUT = re.compile(
    rf"<(?=[a-z]){_ELEMENT}(?=[\s/]|\Z)(?:"
    rf"(?:\s+{_ATTRIBUTE})+(?:\s*/)?"  # <span class="a-color-secondary"
    r"|\s[^<>]*=\s?[\"'][^<>\"']*\Z"  # <span class="a-col
    r"|\s*/?\Z)"  # <br
    r"|</(?:[A-Za-z][A-Za-z0-9]*)?\s*\Z"  # </p
    # alt="Magazines"/>; kept as text if unclosed
    rf"|(?P<attributes>(?:{_ATTRIBUTE}\s*)++)(?P<end>/?>)?"
    r"|[\"']\s*/>",  # Magazines" />
    re.IGNORECASE,
)
_LEFT_OVER = re.compile(r"[\s.,:;\"'/>]*")  # text of only these characters was markup
MAX_MARKS = 30  # maximum combining marks in a row
JOINER = "\u034f"  # combining grapheme joiner: invisible, combining class 0
# superset of such runs: marks are neither letters nor digits
_MARKS = re.compile(rf"[^\w\s!-~]{{{MAX_MARKS + 1},}}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]+")
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\ufeff\ufffd-\uffff\ud800-\udfff\s]+"
)


class Parsed(NamedTuple):
    """A clean product of one of the wanted items."""

    name: str  # identifier at the source
    product: Product  # clean
    left_out: tuple[str, ...] = ()  # roles whose field holds an object in place of a text


Line = tuple[int, bytes]  # line number from 1, and bytes
Outcome = Parsed | RejectedRow | str  # a string is the reason why a line is skipped


def parse_lines(
    lines: Iterable[bytes], source: Source, wanted: Collection[str], workers: int | None
) -> Iterator[Outcome]:
    """Yield an outcome per line, with lines of other items last.

    `workers` None chooses the number of processes.
    """
    if workers is None:
        is_large = len(wanted) >= MIN_ITEMS_FOR_PROCESSES
        workers = (os.cpu_count() or 1) if is_large else 1
    find_name = source.reader().key
    n_others = 0

    def wanted_lines() -> Iterator[Line]:
        """Skip lines of other items, which are recognised without parsing."""
        nonlocal n_others
        for number, line in enumerate(lines, start=1):
            name = find_name(line)
            if name is not None and name not in wanted and len(line) <= MAX_LINE_BYTES:
                n_others += 1
            else:
                yield number, line

    pool = None if workers == 1 else engine.Processes(workers, torch=False)
    parse = partial(_batch_parser, source, wanted)
    for _, outcomes in engine.run_jobs(parse, _batch_lines(wanted_lines()), pool):
        yield from outcomes
    yield from repeat("other_item", n_others)


def _batch_lines(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield batches of lines; a few long lines also fill one."""
    batch = list[Line]()
    size = 0
    for number, line in lines:
        batch.append((number, line))
        size += len(line)
        if len(batch) == LINES_PER_BATCH or size >= MAX_LINE_BYTES:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


def _batch_parser(source: Source, wanted: Container[str]) -> Callable[[list[Line]], list[Outcome]]:
    reader = source.reader()
    return lambda batch: [parse_line(*line, reader, wanted) for line in batch]


def parse_line(number: int, raw: bytes, reader: Reader, wanted: Container[str]) -> Outcome:
    if len(raw) <= MAX_LINE_BYTES and not raw.strip():
        return "blank_line"
    try:
        if len(raw) > MAX_LINE_BYTES:
            raise ValueError("line too long")
        record = reader.parse(raw)
        name = reader.name(record)
        if name is None:
            raise ValueError("no item identifier")
        if name not in wanted:
            return "other_item"
        left_out = tuple(
            role
            for role in TEXT_FIELDS
            if holds_object(record.get(reader.item_columns.get(role, "")))
        )
        return Parsed(name, clean_product(reader.product(record)), left_out)
    except ValueError as e:
        return RejectedRow(number, str(e), raw[:MAX_RAW_BYTES])


def clean_product(product: Product) -> Product:
    texts = (product.title, product.brand, product.description, *product.categories)
    if sum(map(len, texts)) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"text of more than {MAX_TEXT_CHARACTERS:,} characters")
    addresses = dict.fromkeys(map(_clean_address, product.image_urls))
    return Product(
        title=clean_text(product.title),
        brand=clean_text(product.brand),
        categories=list(filter(None, map(clean_text, product.categories))),
        description=clean_text(product.description),
        image_urls=list(addresses)[:MAX_ADDRESSES],
        extra=product.extra,
    )


def clean_text(text: str) -> str:
    """Remove markup and control characters, and join white space."""
    if "&" in text or "<" in text or ">" in text:
        text = _remove_markup(text)
    if not (text.isascii() and text.isprintable()):
        # U+034F splits long runs of marks, as in UAX 15: NFC sorts a run in quadratic time
        parted = _MARKS.sub(_part_marks, _CONTROL.sub(" ", text))
        text = unicodedata.normalize("NFC", parted)
    # the only white space left is spaces
    return " ".join(text.split()) if "  " in text else text.strip(" ")


def _remove_markup(text: str) -> str:
    for _ in range(MAX_UNESCAPES):
        resolved = html.unescape(text)
        plain = _TAG.sub(" ", _HIDDEN.sub(" ", resolved))
        plain = _CUT.sub(_replace_cut, plain)
        if plain != resolved and _LEFT_OVER.fullmatch(plain):
            return ""
        if plain == text:
            break
        text = plain
    return text


def _replace_cut(match: re.Match[str]) -> str:
    is_text = match["attributes"] and not match["end"]
    return match[0] if is_text else " "


def _part_marks(match: re.Match[str]) -> str:
    parts = []
    run = 0
    for char in match[0]:
        run = run + 1 if unicodedata.combining(char) else 0
        if run > MAX_MARKS:
            parts.append(JOINER)
            run = 1
        parts.append(char)
    return "".join(parts)


def _clean_address(url: str) -> str:
    if is_path(url.strip()):  # file names may contain spaces and ampersands
        return _UNPRINTABLE.sub("", url).strip()
    plain = _CONTROL.sub("", html.unescape(url))
    return f"https:{plain}" if plain.startswith("//") else plain
