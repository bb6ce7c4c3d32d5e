"""Download one file: resumable, retried, verified, and written atomically."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.web.retries import TransientError, append_blocks

if TYPE_CHECKING:
    import httpx

Progress = Callable[[int, int | None], None]  # called with (bytes received, total or None)


def local_path(address: str) -> Path | None:
    """Return the local path that an address names, or None for http(s).

    Raise UserError for other schemes.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # such as an unbalanced bracket
        raise UserError(f"{address}: not a valid address") from None
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme and "://" in address:
        raise UserError(
            f"{address}: cannot fetch '{parts.scheme}' addresses; use http, https, file or a path"
        )
    return Path(address)


def fetch_file(
    address: str, target: Path, pinned: str | None, timeout: float, retries: int, progress: Progress
) -> str:
    """Download or copy a file to `target`, resuming if possible, and return its sha256.

    Raise UserError on failure.
    """
    # partial downloads are kept per address; `timeout` is in seconds without a byte
    address_hash = hashlib.sha256(address.encode()).hexdigest()[:8]
    part = target.with_name(f".{target.name}.{address_hash}.part")
    mark = part.with_suffix(".etag")
    source = local_path(address)
    part.parent.mkdir(parents=True, exist_ok=True)
    if source is None:
        _download_part(address, part, mark, timeout, retries, progress)
    else:
        part.unlink(missing_ok=True)  # never write through a planted link
        shutil.copyfile(io.require_plain(source), part)
    mark.unlink(missing_ok=True)

    sha256 = io.sha256(part)
    fault = _find_fault(part, target.name, sha256, pinned)
    if fault:
        part.unlink()
        raise UserError(f"{address}: {fault}")
    with io.atomic(target) as temporary:
        part.replace(temporary)
    if io.sha256(target) != sha256:
        target.unlink()
        raise UserError(f"{target}: changed while it was written; run again, or check the disk")
    return sha256


def _find_fault(part: Path, name: str, sha256: str, pinned: str | None) -> str | None:
    """Return why a complete download is not the file; None if it may be."""
    with part.open("rb") as file:
        head = file.read(512)
    if is_web_page(head):
        return "the answer is a web page (HTML), not a file"
    if name.endswith(".gz") and not head.startswith(b"\x1f\x8b"):
        return "not gzip, though its name ends in .gz"
    if pinned not in (None, sha256):
        return (
            f"its sha256 is {sha256}, expected {pinned}: the file changed; delete the dataset's "
            "sources.json, or change sha256 in the parameters, if that is right"
        )
    return None


def _download_part(
    address: str, part: Path, mark: Path, timeout: float, retries: int, progress: Progress
) -> None:
    from alignrec.pipeline.web.client import open_client  # httpx takes 0.1 s to load

    with open_client(timeout) as web:

        def read_rest(start: int) -> Iterator[bytes]:
            return _read_rest(web, address, part, mark, start, progress)

        try:
            append_blocks(read_rest, part, retries + 1)
        except (TransientError, UserError) as e:
            if not part.stat().st_size:
                part.unlink()
            if isinstance(e, UserError):
                raise
            raise UserError(
                f"{address}: {e} (after {retries + 1} tries); run again to continue"
            ) from None


def _read_rest(
    web: httpx.Client, url: str, part: Path, mark: Path, start: int, progress: Progress
) -> Iterator[bytes]:
    """Yield the bytes that `part` lacks; truncate it first if the server's file has changed."""
    from alignrec.pipeline.web.client import first_byte, read_body, request_file

    if not mark.exists():
        start = 0
    version = mark.read_text() if start else ""
    with request_file(web, url, url, start, version) as response:
        if response.status_code == 416:  # the part belongs to another version of the file
            mark.unlink()
            raise TransientError("the file changed while it was fetched", 0.0)

        received = first_byte(response, start)
        os.truncate(part, received)
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and validator.isascii() and not validator.startswith("W/"):
            mark.write_text(validator)  # identifies the file version of the partial download
        else:
            # without a strong one, no later response can be matched to the part
            mark.unlink(missing_ok=True)

        for block in read_body(response):
            received += len(block)
            yield block
            progress(received, total)


def is_web_page(data: bytes) -> bool:
    return data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))
