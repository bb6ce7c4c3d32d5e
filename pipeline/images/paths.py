"""Paths of image files of this machine, and a fingerprint that changes when one of them does."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import orjson
import pyarrow as pa

from pipeline import io
from pipeline.config.parameters import Source
from pipeline.http.fetch import local
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.sources.base import Downloaded
from pipeline.sources.product import is_path

ITEM = re.compile(r"\{(?:item|asin)\}")
WEB = re.compile(r"https?://", re.IGNORECASE)


def start(source: Source, raw: Path, folder: str | None) -> Path | None:
    """Return the folder or archive that paths of images start from; None if there is none on this machine.

    By default, it is the folder of the item file, or else of the interactions.
    """
    if not isinstance(source, Downloaded):
        return raw
    if folder is not None:
        return Path(folder)
    files = source.files()
    named = files.get("metadata") or next(iter(files.values()))
    paths = [path for address in named if (path := local(address)) is not None]
    return paths[0].parent if paths else None


def resolve(root: Path, address: str) -> Path:
    """Return the path that a path or file address names; ValueError or OSError for an invalid one."""
    if address[:5].lower() == "file:":
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise ValueError("file addresses begin with file:///")
        address = unquote(parts.path)
    return Path(os.path.realpath(root / address))


def candidates(
    asins: Sequence[str],
    image_urls: Sequence[list[str]],
    patterns: Sequence[str],
    present: Callable[[str], bool] = lambda path: True,
) -> Iterator[list[str]]:
    """Yield each item's addresses, best first: those of images.pattern that are web addresses or `present`, its own."""
    for asin, urls in zip(asins, image_urls, strict=True):
        filled = (fill(pattern, asin) for pattern in patterns)
        yield list(dict.fromkeys([*(a for a in filled if not is_path(a) or present(a)), *urls]))


def fill(pattern: str, asin: str) -> str:
    name = quote(asin, safe="") if WEB.match(pattern) or pattern[:5].lower() == "file:" else asin
    return ITEM.sub(lambda _: name, pattern)


def fingerprint(layout: Layout, source: Source, params: Images, batches: Iterable[pa.RecordBatch]) -> str:
    """Return a sha256 that changes when an image file that items name does; `batches` as in `listing`."""
    if not params.allow_file:
        return ""
    if not isinstance(source, Downloaded):
        return io.digest([layout.sources])  # its images follow from what this lists
    return listing(start(source, layout.raw, params.folder), batches, params.pattern)


def listing(root: Path | None, batches: Iterable[pa.RecordBatch], patterns: Sequence[str]) -> str:
    """Return a sha256 over addresses and contents of the image files that items (asin, image_urls) name."""
    total = hashlib.sha256()
    if root is None:
        return total.hexdigest()
    if root.is_file():
        total.update(io.sha256(root).encode())
        return total.hexdigest()
    for batch in batches:
        columns = batch["asin"].to_pylist(), batch["image_urls"].to_pylist()
        for addresses in candidates(*columns, patterns):
            for address in filter(is_path, addresses):
                total.update(address.encode() + _content(root, address))
    return total.hexdigest()


def digest(items: pa.Table) -> str:
    total = hashlib.sha256()
    for batch in items.select(["asin", "image_urls"]).to_batches(8192):
        total.update(orjson.dumps([column.to_pylist() for column in batch.columns]))
    return total.hexdigest()


def _content(root: Path, address: str) -> bytes:
    try:
        with resolve(root, address).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError):
        return b"none"
