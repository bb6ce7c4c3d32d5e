"""Image files of this machine, read in place, of a folder or of a zip or tar archive. Their names are untrusted."""

import hashlib
import os
import posixpath
import re
import tarfile
import threading
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import orjson
import pyarrow as pa

from pipeline import io
from pipeline.config.parameters import Source
from pipeline.errors import UserError, one_line
from pipeline.http import archives
from pipeline.http.fetch import local
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.sources.base import Downloaded
from pipeline.sources.product import is_path

ITEM = re.compile(r"\{(?:item|asin)\}")
GZIP = b"\x1f\x8b"
DENSEST, MOST_POINTS = 1 << 19, 2000  # bytes between points of a tar.gz's index, and how many; each takes 32 KiB
LONGEST_HEADER = 1 << 20  # bytes of a member's extended header in a tar
BUFFER = 1 << 16  # bytes read at a time: an image has some ten thousand


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


class Archive(Files):
    """Members of an archive, which is never unpacked."""

    members: Mapping[str, Any]  # name -> where it is

    def has(self, address: str) -> bool:
        return (name := _member(address)) is None or name in self.members

    def read(self, address: str, max_bytes: int) -> Fetched:
        if (name := _member(address)) is None:
            return Fetched(None, "blocked", "not a path inside the archive of the images")
        return self.extract(self.members[name], max_bytes) if name in self.members else NO_FILE

    @abstractmethod
    def extract(self, member: Any, max_bytes: int) -> Fetched: ...


class Zip(Archive):
    """Members of a zip archive."""

    def __init__(self, path: Path) -> None:
        self._zip = archives.open_zip(path)
        self.members = {_plain(m.filename): m for m in self._zip.infolist() if m.filename and not m.is_dir()}
        self.close = self._zip.close  # type: ignore[method-assign]

    def extract(self, member: zipfile.ZipInfo, max_bytes: int) -> Fetched:
        try:
            return _limited(archives.read_member(self._zip, member, "the archive"), max_bytes)
        except UserError as e:
            return Fetched(None, "unreachable", str(e)[:200])


class Tar(Archive):
    """Members of a tar archive, plain or gzipped; a gzipped one gets an index, so that any member is near."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(_open_seekable(path))
            try:
                self.members = _places(self._file)
            except (tarfile.TarError, OSError, EOFError, ValueError) as e:
                raise UserError(
                    f"{path}: not a readable zip, tar or tar.gz archive ({one_line(e, 100)}); unpack it and name the "
                    "folder"
                ) from None
            self.close = stack.pop_all().close  # type: ignore[method-assign]
        self._lock = threading.Lock()

    def extract(self, member: tuple[int, int], max_bytes: int) -> Fetched:
        first, size = member
        if size > max_bytes:
            return Fetched(None, "too_large", f"more than {max_bytes} bytes")
        try:
            with self._lock:
                self._file.seek(first)
                data = self._file.read(size)
        except (OSError, EOFError, ValueError) as e:
            return Fetched(None, "truncated", f"damaged in the archive: {e}"[:200])
        return Fetched(data) if len(data) == size else Fetched(None, "truncated", "the archive ends before it")


def open_files(params: Images, start: Path | None) -> Files:
    if start is None:
        return Files()
    if start.is_dir():
        return Folder(start, params.outside)
    if not start.is_file():
        raise UserError(f"{start}: no such folder or archive of images; see images.folder in the parameters")
    return Zip(start) if zipfile.is_zipfile(start) else Tar(start)


def _open_seekable(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        gzipped = file.read(2) == GZIP
    if not gzipped:
        return path.open("rb")
    from indexed_gzip import IndexedGzipFile  # gzip's own file unpacks from the start to go back

    spacing = max(DENSEST, path.stat().st_size // MOST_POINTS)
    indexed: BinaryIO = IndexedGzipFile(filename=str(path), spacing=spacing, buffer_size=BUFFER, drop_handles=False)
    return indexed


def _places(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Return name -> first byte and number of bytes of a tar archive's files; a hard link is where its file is."""
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            if member.isreg() and not member.issparse():
                places[_plain(member.name)] = member.offset_data, member.size
            elif member.islnk() and (linked := places.get(_plain(member.linkname))):
                places[_plain(member.name)] = linked
            tar.members = []  # TarFile would keep all
        file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # which ends every archive; TarFile does not mind
        raise ValueError("it is damaged, or ends too early")
    return places


class _Headers:
    """A tar file whose headers are bounded in size."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, size: int) -> bytes:
        if size > LONGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _limited(blocks: Iterable[bytes], max_bytes: int) -> Fetched:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > max_bytes:
            return Fetched(None, "too_large", f"more than {max_bytes} bytes")
    return Fetched(bytes(data))


def _plain(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _member(address: str) -> str | None:
    name = posixpath.normpath(address)
    return None if address[:5].lower() == "file:" or name.startswith(("/", "../")) or name == ".." else name


def start_of(source: Source, raw: Path, folder: str | None) -> Path | None:
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
