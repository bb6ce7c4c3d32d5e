"""All raw files of one dataset, and the list of them with checksums."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from pipeline import io
from pipeline.errors import UserError
from pipeline.fetch import Progress, fetch, local

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


def names(addresses: dict[str, str]) -> dict[str, str]:
    """Return role -> the name under which each file is stored: the last part of its address, if it is a plain name.

    Raises:
        UserError: an address ends in no plain file name, or two have the same.
    """
    found: dict[str, str] = {}
    for role, address in addresses.items():
        name = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
        if not SAFE.fullmatch(name) or name == "sources.json":
            raise UserError(f"{address}: its last part is no usable file name (letters, digits, . _ -)")
        if name in found.values():
            raise UserError(f"{address}: two files of this dataset are called {name}; rename one")
        found[role] = name
    return found


def download(
    addresses: dict[str, str], raw: Path, timeout: float, retries: int, progress: Callable[[str], Progress]
) -> dict[str, str]:
    """Fetch every file that is not in `raw` yet.

    Args:
        addresses: role -> URL or path.
        raw: folder of the raw files; only whole, checked files appear there.
        timeout: seconds without a byte.
        retries: tries after the first.
        progress: makes the progress callback of one file from its name.

    Returns:
        role -> file name.
    """
    stored = names(addresses)
    for role, name in stored.items():
        if not (raw / name).exists():
            fetch(addresses[role], raw / name, timeout, retries, progress(name))
    return stored


def meter(bar: tqdm) -> Progress:
    """Return a progress callback that moves `bar`, which counts bytes."""
    bar.unit_scale = True

    def at(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return at


def listing(raw: Path, stored: dict[str, str], addresses: dict[str, str]) -> list[dict[str, Any]]:
    """Return what `sources.json` holds: an object a file with role, name, url, bytes, sha256.

    A local file's url is its name alone, so that nothing tells where on which machine it lay.
    """
    rows = []
    for role, name in stored.items():
        address = addresses.get(role, f"file:{name}")
        url = address if local(address) is None else f"file:{name}"
        size, sha256 = (raw / name).stat().st_size, io.sha256(raw / name)
        rows.append({"role": role, "name": name, "url": _public(url), "bytes": size, "sha256": sha256})
    return rows


def local_files(addresses: Iterable[str]) -> list[Path]:
    """Return the addresses that are files of this machine, as paths; UserError for one that is not there."""
    paths = [path for address in addresses if (path := local(address)) is not None]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; it is named under `sources` in the parameters")
    return paths


def _public(url: str) -> str:
    """Return the address without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment="").geturl()
