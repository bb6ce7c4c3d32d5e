"""Image files of this machine, read in place, of a folder or a zip archive. Their names are untrusted."""

import hashlib
import os
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import orjson
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.config.parameters import Source
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.http import archives
from alignrec.pipeline.http.fetch import local
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.product import is_path

ITEM = re.compile(r"\{(?:item|asin)\}")


class Fetched(NamedTuple):
    """How fetching one address ended: `data`, or a status of schemas.IMAGE_STATUSES with its reason."""

    data: bytes | None
    status: str = "ok"
    reason: str = ""


NO_FILE = Fetched(None, "unreachable", "no such file")


class Files:
    """Where image files are read: here nowhere."""

    def has(self, address: str) -> bool:
        """Return whether `read` gives anything but NO_FILE."""
        return True

    def read(self, address: str, max_bytes: int) -> Fetched:
        return Fetched(None, "blocked", "a path, and the item file is not on this machine; set images.folder")

    def close(self) -> None:
        pass


class Folder(Files):
    """Files below a folder; links are followed, and count where they lead."""

    def __init__(self, root: Path, outside: bool) -> None:
        self._root, self._outside = root.resolve(), outside

    def has(self, address: str) -> bool:
        try:
            path = _resolve(self._root, address)
            return path.is_file() or not path.is_relative_to(self._root)
        except (OSError, ValueError):
            return False

    def read(self, address: str, max_bytes: int) -> Fetched:
        try:
            path = _resolve(self._root, address)
            if not (self._outside or path.is_relative_to(self._root)):
                return Fetched(None, "blocked", "outside the folder of the images; see images.outside")
            if not path.is_file():  # a folder or a device
                return NO_FILE
            with path.open("rb") as file:
                return _limited([file.read(max_bytes + 1)], max_bytes)
        except (OSError, ValueError):  # a name that no file can have, or a file that may not be read
            return Fetched(None, "unreachable", "not a readable file")


class Zip(Files):
    """Members of a zip archive, which is never unpacked."""

    def __init__(self, path: Path) -> None:
        self._zip = archives.open_zip(path)
        named = (member for member in self._zip.infolist() if member.filename and not member.is_dir())
        self._members = {posixpath.normpath(member.filename).lstrip("/"): member for member in named}

    def has(self, address: str) -> bool:
        return (name := _member(address)) is None or name in self._members

    def read(self, address: str, max_bytes: int) -> Fetched:
        if (name := _member(address)) is None:
            return Fetched(None, "blocked", "not a path inside the archive of the images")
        if name not in self._members:
            return NO_FILE
        try:
            return _limited(archives.read_member(self._zip, self._members[name], "the archive"), max_bytes)
        except UserError as e:
            return Fetched(None, "unreachable", str(e)[:200])

    def close(self) -> None:
        self._zip.close()


def open_files(params: Images, start: Path | None) -> Files:
    if start is None:
        return Files()
    if start.is_dir():
        return Folder(start, params.outside)
    if not start.is_file():
        raise UserError(f"{start}: no such folder or archive of images; see images.folder in the parameters")
    if not zipfile.is_zipfile(start):
        raise UserError(f"{start}: not a zip archive; unpack it, and name the folder in images.folder")
    return Zip(start)


def _limited(blocks: Iterable[bytes], max_bytes: int) -> Fetched:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > max_bytes:
            return Fetched(None, "too_large", f"more than {max_bytes} bytes")
    return Fetched(bytes(data))


def _member(address: str) -> str | None:
    name = posixpath.normpath(address)
    return None if address[:5].lower() == "file:" or name.startswith(("/", "../")) or name == ".." else name


def start_of(source: Source, raw: Path, folder: str | None) -> Path | None:
    """Return where paths of images start, by default at the folder of the item file; None: not on this machine."""
    if not isinstance(source, Downloaded):
        return raw
    if folder is not None:
        return Path(folder)
    files = source.files()
    named = files.get("metadata") or next(iter(files.values()))
    paths = [path for address in named if (path := local(address)) is not None]
    return paths[0].parent if paths else None


def _resolve(root: Path, address: str) -> Path:
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
    quoted = re.compile(r"https?://|file:", re.IGNORECASE)
    for asin, urls in zip(asins, image_urls, strict=True):
        names = {pattern: quote(asin, safe="") if quoted.match(pattern) else asin for pattern in patterns}
        filled = (ITEM.sub(lambda _, name=name: name, pattern) for pattern, name in names.items())  # type: ignore[misc]
        yield list(dict.fromkeys([*(a for a in filled if not is_path(a) or present(a)), *urls]))


def fingerprint(layout: Layout, source: Source, params: Images, items: pa.Table) -> str:
    """Return a sha256 over addresses of items (asin, image_urls), and contents of the image files that they name."""
    root = start_of(source, layout.raw, params.folder)
    total = hashlib.sha256()
    if not isinstance(source, Downloaded):
        total.update(io.digest([layout.sources]).encode())  # its images follow from what this lists
    elif root is not None and root.is_file():
        total.update(io.sha256(root).encode())
    for batch in items.select(["asin", "image_urls"]).to_batches(8192):
        asins, urls = (column.to_pylist() for column in batch.columns)
        total.update(orjson.dumps([asins, urls]))
        if not isinstance(source, Downloaded) or root is None or root.is_file():
            continue
        for address in filter(is_path, chain.from_iterable(candidates(asins, urls, params.pattern))):
            with suppress(OSError, ValueError):
                if (path := _resolve(root, address)).is_file():  # reading a pipe would wait for ever
                    total.update(address.encode() + io.sha256(path).encode())
    return total.hexdigest()
