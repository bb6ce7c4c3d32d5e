"""Image files of this machine, read in place, of a folder or of a zip or tar archive. Their names are untrusted."""

import posixpath
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, BinaryIO

from pipeline.errors import UserError, one_line
from pipeline.http import archives
from pipeline.http.web import Fetched
from pipeline.images.params import Images
from pipeline.images.paths import resolve

GZIP = b"\x1f\x8b"
DENSEST, MOST_POINTS = 1 << 19, 2000  # bytes between points of a tar.gz's index, and how many; each takes 32 KiB
LONGEST_HEADER = 1 << 20  # bytes of a member's extended header in a tar
BUFFER = 1 << 16  # bytes read at a time: an image has some ten thousand
NO_FILE = Fetched(None, "unreachable", "no such file")
OUTSIDE = Fetched(None, "blocked", "outside the folder of the images; see images.outside")
NOT_IN_ARCHIVE = Fetched(None, "blocked", "not a path inside the archive of the images")
NO_START = "a path, and the item file is not on this machine; set images.folder"
BZIP2 = "not readable in the archive: bzip2 makes gigabytes of a kilobyte; pack it otherwise"
REFUSED = "files of this machine are refused; see images.allow_file"


class Files(ABC):
    """Where image files are read."""

    @abstractmethod
    def has(self, address: str) -> bool:
        """Return whether `read` gives anything but NO_FILE."""

    @abstractmethod
    def read(self, address: str, max_bytes: int) -> Fetched:
        """Return the bytes of a path or file address, or the reason why there are none."""

    def close(self) -> None:  # noqa: B027
        pass


class Refused(Files):
    """No files: every address ends as blocked."""

    def __init__(self, reason: str) -> None:
        self._blocked = Fetched(None, "blocked", reason)

    def has(self, address: str) -> bool:
        return True

    def read(self, address: str, max_bytes: int) -> Fetched:
        return self._blocked


class Folder(Files):
    """Files below a folder; links are followed, and count where they lead."""

    def __init__(self, root: Path, outside: bool) -> None:
        self._root, self._outside = root.resolve(), outside

    def has(self, address: str) -> bool:
        try:
            path = resolve(self._root, address)
            return path.is_file() or not path.is_relative_to(self._root)
        except (OSError, ValueError):
            return False

    def read(self, address: str, max_bytes: int) -> Fetched:
        try:
            path = resolve(self._root, address)
            if not (self._outside or path.is_relative_to(self._root)):
                return OUTSIDE
            if not path.is_file():  # a folder or a device
                return NO_FILE
            with path.open("rb") as file:
                return _read_limited(file, max_bytes)
        except (OSError, ValueError):  # a name that no file can have, or a file that may not be read
            return Fetched(None, "unreachable", "not a readable file")


class Archive(Files):
    """Members of an archive: name -> where it is."""

    members: Mapping[str, Any]

    def has(self, address: str) -> bool:
        return (name := _member(address)) is None or name in self.members

    def read(self, address: str, max_bytes: int) -> Fetched:
        if (name := _member(address)) is None:
            return NOT_IN_ARCHIVE
        return self.extract(self.members[name], max_bytes) if name in self.members else NO_FILE

    @abstractmethod
    def extract(self, member: Any, max_bytes: int) -> Fetched: ...


class Zip(Archive):
    """Members of a zip archive."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except archives.FAULTS as e:
            raise UserError(_unreadable(path, e)) from None
        self.members = {_plain(m.filename): m for m in self._zip.infolist() if m.filename and not m.is_dir()}

    def extract(self, member: zipfile.ZipInfo, max_bytes: int) -> Fetched:
        try:
            if member.compress_type == zipfile.ZIP_BZIP2:
                return Fetched(None, "unreachable", BZIP2)
            with self._zip.open(member) as file:  # of LZMA zipfile unpacks all that it reads at once
                return _read_limited(
                    file, max_bytes, archives.PIECE if member.compress_type == zipfile.ZIP_LZMA else None
                )
        except (RuntimeError, NotImplementedError) as e:  # it has a password, or a compression that Python lacks
            return Fetched(None, "unreachable", f"not readable in the archive: {e}"[:200])
        except archives.FAULTS as e:
            return Fetched(None, "truncated", f"damaged in the archive: {e}"[:200])

    def close(self) -> None:
        self._zip.close()


class Tar(Archive):
    """Members of a tar archive, plain or gzipped; a gzipped one gets an index, so that any member is near."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(_open_seekable(path))
            try:
                self.members = _places(self._file)
            except (tarfile.TarError, OSError, EOFError, ValueError) as e:
                raise UserError(_unreadable(path, e)) from None
            stack.pop_all()

    def extract(self, member: tuple[int, int], max_bytes: int) -> Fetched:
        first, size = member
        if size > max_bytes:
            return _too_large(max_bytes)
        try:
            self._file.seek(first)
            data = self._file.read(size)
        except (OSError, EOFError, ValueError) as e:
            return Fetched(None, "truncated", f"damaged in the archive: {e}"[:200])
        return Fetched(data) if len(data) == size else Fetched(None, "truncated", "the archive ends before it")

    def close(self) -> None:
        self._file.close()


def opened(params: Images, start: Path | None) -> Files:
    if not params.allow_file:
        return Refused(REFUSED)
    if start is None:
        return Refused(NO_START)
    if start.is_dir():
        return Folder(start, params.outside)
    if not start.is_file():
        raise UserError(f"{start}: no such folder or archive of images; see images.folder in the parameters")
    try:
        return Zip(start) if zipfile.is_zipfile(start) else Tar(start)
    except zipfile.BadZipFile as e:
        raise UserError(_unreadable(start, e)) from None


def _open_seekable(path: Path) -> BinaryIO:
    file = path.open("rb")
    if file.read(2) != GZIP:
        file.seek(0)
        return file
    file.close()
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


def _unreadable(path: Path, why: Exception) -> str:
    return f"{path}: not a readable zip, tar or tar.gz archive ({one_line(why, 100)}); unpack it and name the folder"


def _read_limited(file: IO[bytes], max_bytes: int, piece: int | None = None) -> Fetched:
    data = file.read(piece or max_bytes + 1)
    while piece and len(data) <= max_bytes and (more := file.read(piece)):
        data += more
    return Fetched(data) if len(data) <= max_bytes else _too_large(max_bytes)


def _too_large(max_bytes: int) -> Fetched:
    return Fetched(None, "too_large", f"more than {max_bytes} bytes")


def _plain(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _member(address: str) -> str | None:
    name = posixpath.normpath(address)
    return None if address[:5].lower() == "file:" or name.startswith(("/", "../")) or name == ".." else name
