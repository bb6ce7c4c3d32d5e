"""Read images from untrusted addresses: in a folder, a zip archive or on the web."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import httpx
import orjson
import pyarrow as pa

from alignrec.pipeline.images.params import RATE, Images
from alignrec.pipeline.io import archives
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.base import Downloaded, is_path, spellings
from alignrec.pipeline.web import client, retries
from alignrec.pipeline.web.download import local_path

RETRIES = 3  # retries after the first attempt, for transient failures
PER_HOST = 8  # maximum simultaneous requests to one host
GIVE_UP_AFTER = 16  # consecutive addresses without an answer before a host is abandoned
MAX_HOSTS = 4096  # whose state is kept
MAX_HOLD_SECONDS = 600.0  # in a row of Retry-After, before a host is abandoned
ITEM = re.compile(r"\{(?:item|asin)\}")
QUOTED = re.compile(r"https?://|file:", re.IGNORECASE)  # addresses in which names are quoted


# Amazon's addresses with a step of rendering, which expire:
# .../images/W/WEBP_402378-T1/images/I/...
RENDERED = re.compile(r"/images/W/[^/]+(?=/images/I/)")


def without_rendering(url: str) -> str:
    """Return the address of a photo itself, where Amazon's address has a step of rendering."""
    return RENDERED.sub("", url, count=1)


class Fetched(NamedTuple):
    """Bytes of one address, or a status of schemas.IMAGE_STATUSES with a reason."""

    data: bytes | None
    status: str = "ok"
    reason: str = ""


NO_FILE = Fetched(None, "unreachable", "no such file")


class ImageFiles:
    """Interface for local images; this base class has none."""

    def has(self, address: str) -> bool:
        return self.read(address, 0) != NO_FILE

    def read(self, address: str, max_bytes: int) -> Fetched:
        return Fetched(
            None, "blocked", "a path, and the item file is not on this machine; set images.folder"
        )

    def close(self) -> None:
        pass


class ImageFolder(ImageFiles):
    """Images in a folder. Symbolic links are resolved before access is checked."""

    def __init__(self, root: Path, outside: bool) -> None:
        self._root = root.resolve()
        self._outside = outside

    def read(self, address: str, max_bytes: int) -> Fetched:
        try:
            paths = self._resolve(address)
            if not (self._outside or all(path.is_relative_to(self._root) for path in paths)):
                reason = "outside the folder of the images; see images.outside"
                return Fetched(None, "blocked", reason)
            found = list(filter(Path.is_file, paths))  # pipes and devices may block forever
            if not found:
                return NO_FILE
            with found[0].open("rb") as file:
                return read_limited([file.read(max_bytes + 1)], max_bytes)
        except (OSError, ValueError):  # an invalid name, or no permission
            return Fetched(None, "unreachable", "not a readable file")

    def _resolve(self, address: str) -> list[Path]:
        """Return the paths that an address may mean."""
        if address[:5].lower() == "file:":
            parts = urlsplit(address)
            if parts.netloc not in ("", "localhost"):
                raise ValueError("file addresses begin with file:///")
            address = unquote(parts.path)
        # paths may start at the folder's name
        paths = []
        for spelling in spellings(address):
            first, _, rest = spelling.partition("/")
            name = rest if first == self._root.name else spelling
            paths.append(Path(os.path.realpath(self._root / name)))
        return paths


class ImageArchive(ImageFiles):
    """Images in a zip archive, read without unpacking it."""

    def __init__(self, path: Path) -> None:
        self._zip = archives.open_zip(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            if member.filename and not member.is_dir():
                self._members[posixpath.normpath(member.filename).lstrip("/")] = member

    def read(self, address: str, max_bytes: int) -> Fetched:
        name = posixpath.normpath(address)
        is_outside = name.startswith(("/", "../")) or name == ".."
        if is_outside or address[:5].lower() == "file:":
            return Fetched(None, "blocked", "not a path inside the archive of the images")
        found = [spelling for spelling in spellings(name) if spelling in self._members]
        if not found:
            return NO_FILE
        try:
            blocks = archives.read_member(self._zip, self._members[found[0]], "the archive")
            return read_limited(blocks, max_bytes)
        except UserError as e:
            return Fetched(None, "unreachable", str(e)[:200])

    def close(self) -> None:
        self._zip.close()


def read_limited(blocks: Iterable[bytes], max_bytes: int) -> Fetched:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > max_bytes:
            return Fetched(None, "too_large", f"more than {max_bytes} bytes")
    return Fetched(bytes(data))


def find_image_root(source: Source, raw: Path, folder: str | None) -> Path | None:
    """Return the folder or archive to which image paths are relative.

    None if there is none on this machine.
    """
    if not isinstance(source, Downloaded):
        return raw
    if folder is not None:
        return Path(folder)
    files = source.files()
    path = local_path(files.get("metadata") or next(iter(files.values())))
    return path.parent if path is not None else None


def open_files(params: Images, start: Path | None) -> ImageFiles:
    if start is None:
        return ImageFiles()
    if start.is_dir():
        return ImageFolder(start, params.outside)
    if not start.is_file():
        raise UserError(
            f"{start}: no such folder or archive of images; see images.folder in the parameters"
        )
    if not zipfile.is_zipfile(start):
        raise UserError(
            f"{start}: not a zip archive; unpack it, and name the folder in images.folder"
        )
    return ImageArchive(start)


def prepend_candidates(
    items: pa.Table, patterns: Sequence[str], has: Callable[[str], bool]
) -> pa.Table:
    """Put addresses from `patterns` first in items (asin, image_urls).

    Local ones are added only if `has` finds them.
    """
    candidates = []
    for asin, urls in zip(items["asin"].to_pylist(), items["image_urls"].to_pylist(), strict=True):
        addresses = [_fill_pattern(pattern, asin) for pattern in patterns]
        present = [address for address in addresses if not is_path(address) or has(address)]
        candidates.append(list(dict.fromkeys([*present, *urls])))
    column = pa.array(candidates, items["image_urls"].type)
    return items.set_column(items.column_names.index("image_urls"), "image_urls", column)


def _fill_pattern(pattern: str, asin: str) -> str:
    name = quote(asin, safe="") if QUOTED.match(pattern) else asin
    return ITEM.sub(lambda _: name, pattern)


def hash_inputs(items: pa.Table, files: ImageFiles, max_bytes: int) -> str:
    """Return the sha256 of items' addresses and of the content of local files."""
    total = hashlib.sha256()
    for batch in items.select(["asin", "image_urls"]).to_batches(8192):
        asins, urls = (column.to_pylist() for column in batch.columns)
        total.update(orjson.dumps([asins, urls]))
        for address in filter(is_path, chain.from_iterable(urls)):
            fetched = files.read(address, max_bytes)
            content = fetched.data or fetched.reason.encode()
            total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


class FailedTry(retries.TransientError):
    """A failed attempt that may be retried."""

    def __init__(self, failure: Fetched, wait: float | None) -> None:
        super().__init__(failure.reason, wait)
        self.failure = failure


@dataclass(eq=False)
class _Host:
    """Rate limit and failures of one server (scheme, name and port)."""

    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(PER_HOST))
    lock: threading.Lock = field(default_factory=threading.Lock)
    # consecutive addresses, not attempts: a few dead images must not block the rest of the host
    silent: set[httpx.URL] = field(default_factory=set)
    held: float = 0.0  # consecutive seconds of Retry-After
    next_at: float = 0.0  # earliest time of the next request, monotonic seconds
    given_up: Fetched | None = None  # outcome of all further requests

    def wait_for_turn(self) -> None:
        with self.lock:
            now = time.monotonic()
            turn = max(now, self.next_at)
            self.next_at = turn + 1 / RATE
        time.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Send no request for the time of Retry-After, within limits."""
        with self.lock:
            now = time.monotonic()
            free = max(self.next_at, now)
            self.next_at = max(free, now + min(seconds, retries.MAX_WAIT_SECONDS))
            self.held += self.next_at - free

    def fail_try(
        self, status: str, reason: str, wait: float | None = None, final: bool = False
    ) -> Fetched:
        """Return the failure if it is final or the host is abandoned; otherwise raise FailedTry."""
        failure = Fetched(None, status, reason)
        if len(self.silent) >= GIVE_UP_AFTER or self.held > MAX_HOLD_SECONDS:
            self.given_up = failure
        elif not final:
            raise FailedTry(failure, wait)
        return failure


class Crawler:
    """Thread-safe HTTP fetcher for images.

    Redirects count towards the host of the first address.
    """

    def __init__(self, timeout: float, max_bytes: int, private_hosts: Sequence[str]) -> None:
        self.timeout = timeout
        self.max_bytes = max_bytes
        transport = client.Transport(private_hosts)
        self._client = client.open_client(timeout, timeout / 2, transport)
        self._host = lru_cache(MAX_HOSTS)(lambda server: _Host())
        self.stopped = threading.Event()  # once set, requests that have not begun fail
        self.close = self._client.close

    def get(self, address: str) -> Fetched:
        try:
            url = client.parse_url(address).copy_with(username=None, password=None)
            return retries.retry(lambda: self._try_once(url), RETRIES + 1)
        except client.Blocked as e:
            return Fetched(None, "blocked", str(e))
        except FailedTry as e:
            return e.failure

    def _try_once(self, url: httpx.URL) -> Fetched:
        host = self._host((url.scheme, url.netloc))
        with host.slots:
            if host.given_up is None:
                host.wait_for_turn()
            if host.given_up is not None:  # possibly abandoned while this request waited
                return host.given_up
            if self.stopped.is_set():
                return Fetched(None, "unreachable", "stopped")
            return self._request(host, url)

    def _request(self, host: _Host, url: httpx.URL) -> Fetched:
        request = self._client.build_request("GET", url, headers={"Accept": "image/*"})
        try:
            with client.limit_time(self.timeout):
                response = client.follow_redirects(self._client, request)
                with closing(response):
                    return self._read_answer(host, response)
        except httpx.TooManyRedirects:
            return Fetched(None, "http_error", f"more than {client.MAX_REDIRECTS} redirects")
        except client.Unresolved as e:
            host.silent.add(url)
            return host.fail_try("unreachable", str(e), final=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            host.silent.add(url)
            return host.fail_try("unreachable", "no connection")
        except httpx.TimeoutException:
            host.silent.add(url)
            return host.fail_try("timeout", f"not done in {self.timeout:g} s")
        except httpx.TransportError as e:
            reason = f"connection cut ({type(e).__name__})"
            raise FailedTry(Fetched(None, "unreachable", reason), None) from None

    def _read_answer(self, host: _Host, response: httpx.Response) -> Fetched:
        code = response.status_code
        if code in retries.RETRYABLE:
            wait = retries.retry_after(response.headers.get("Retry-After"))
            if wait is not None:
                host.hold(wait)
            return host.fail_try("http_error", str(code), wait)

        fetched = Fetched(None, "http_error", str(code))
        if code == 200:
            # raw bytes: no compression was requested, so a compressed body is not an image
            try:
                fetched = read_limited(response.iter_raw(), self.max_bytes)
            except httpx.RemoteProtocolError:
                reason = f"connection cut after {response.num_bytes_downloaded:,} bytes"
                raise FailedTry(Fetched(None, "truncated", reason), None) from None
        host.silent.clear()
        host.held = 0.0
        return fetched
