"""Fetches one large file from an address to a path: resumed, retried, checked, and whole or absent."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from isal import igzip
from isal.igzip_lib import IsalError
from tqdm import tqdm

from pipeline import io
from pipeline.errors import UserError
from pipeline.http.retries import TransientError, append

if TYPE_CHECKING:
    import httpx

BLOCK = 1 << 20

Progress = Callable[[int, int | None], None]  # called with (bytes so far, bytes in all or None)


def local(address: str) -> Path | None:
    """Return the path that `address` names on this machine, None for http(s); UserError for anything else."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as an open bracket
        raise UserError(f"{address}: not a valid address") from None
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme and "://" in address:
        raise UserError(f"{address}: cannot fetch '{parts.scheme}' addresses; use http, https, file or a path")
    return Path(address)


def fetch(address: str, target: Path, expected: str | None, timeout: float, retries: int, progress: Progress) -> str:
    """Fetch a URL or path to `target`, which appears only when it is complete and checked; return its sha256.

    Resumes the part of an earlier call from the same address if the server still has the same file. `timeout` is in
    seconds without a byte. UserError: unreachable, cut off, a web page, or another sha256 than `expected`.
    """
    part = target.with_name(f".{target.name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part")
    source = local(address)
    part.parent.mkdir(parents=True, exist_ok=True)
    if source is None:
        _download(address, part, timeout, retries, progress)
    elif source.is_file():  # and no folder, nor a pipe, which may never end
        shutil.copyfile(source, part)
    else:
        raise UserError(f"{address}: {'not a plain file' if source.exists() else 'no such file'}")
    try:
        with ThreadPoolExecutor(2) as pool:  # the disk writes and a core hashes while the file is unpacked
            flushed, hashed = pool.submit(io.flush, part), pool.submit(io.sha256, part)
            check(part, target.name)
            sha256 = hashed.result()
            if expected not in (None, sha256):
                raise ValueError(
                    f"its sha256 is {sha256}, expected {expected}: the file changed; delete the dataset's "
                    "sources.json, or change sha256 in the parameters, if that is right"
                )
            flushed.result()
    except ValueError as e:
        part.unlink()
        part.with_suffix(".etag").unlink(missing_ok=True)
        raise UserError(f"{address}: {e}") from None
    with io.atomic(target) as temporary:
        part.replace(temporary)
    part.with_suffix(".etag").unlink(missing_ok=True)
    return sha256


def _download(address: str, part: Path, timeout: float, retries: int, progress: Progress) -> None:
    from pipeline.http import client  # httpx takes 0.1 s, which files of this machine need not wait for

    with client.open_client(timeout) as web:
        try:
            append(lambda start: _read(web, address, part, start, progress), part, retries + 1)
        except (TransientError, UserError) as e:
            if not part.stat().st_size:
                part.unlink()
            if isinstance(e, UserError):
                raise
            raise UserError(f"{address}: {e} (after {retries + 1} tries); run again to continue") from None


def _read(web: httpx.Client, address: str, part: Path, start: int, progress: Progress) -> Iterator[bytes]:
    """Yield the rest of a file, or all of it, after emptying `part`, if the server has another file by now."""
    from pipeline.http.client import first_byte, request
    from pipeline.http.connections import steady

    mark = part.with_suffix(".etag")
    start = start if mark.exists() else 0
    with request(web, address, address, start, mark.read_text() if start else "") as response:
        if response.status_code == 416:  # the part is not of the server's file
            mark.unlink()
            raise TransientError("the file changed while it was fetched", 0.0)
        if response.status_code not in (200, 206):
            raise UserError(f"{address}: HTTP {response.status_code} {response.reason_phrase}")
        received = first_byte(response, start)
        os.truncate(part, received)
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and validator.isascii() and not validator.startswith("W/"):
            mark.write_text(validator)  # of what is in the part from here on
        else:
            mark.unlink(missing_ok=True)  # nothing says whether a later response is of the same file
        for block in steady(response.iter_raw()):
            received += len(block)
            yield block
            progress(received, total)


def check(path: Path, name: str) -> None:
    """Raise ValueError for a web page in place of a file, and for a broken gzip file."""
    with path.open("rb") as f:
        head = f.read(512)
    if is_web_page(head):
        raise ValueError("the answer is a web page (HTML), not a file")
    if not name.endswith(".gz"):
        return
    if not head.startswith(b"\x1f\x8b"):
        raise ValueError("not gzip, though its name ends in .gz")
    try:
        with igzip.open(path) as f:
            while f.read(BLOCK):
                pass
    except EOFError:
        raise ValueError("the gzip file is cut off") from None
    except (gzip.BadGzipFile, IsalError) as e:  # type: ignore[misc]  # its stub calls the class an instance
        raise ValueError(f"the gzip file is damaged ({e})") from None


def is_web_page(data: bytes) -> bool:
    return data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def meter(bar: tqdm) -> Progress:
    bar.unit_scale = True

    def at(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return at
