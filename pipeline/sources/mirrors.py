"""Several addresses of one file: a mirror may pack it otherwise, and which one gave it is kept."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from isal import igzip

from pipeline import io
from pipeline.errors import UserError
from pipeline.http.fetch import Progress, fetch


def fetch_packed(
    address: str, target: Path, expected: str | None, timeout: float, retries: int, progress: Progress
) -> str:
    """Do as `http.fetch.fetch`; what an address gives unpacked is packed for a target that ends in .gz.

    The packed bytes are the same each time, so `expected` is of them; they are not those of another mirror's .gz file.
    """
    if target.suffix != ".gz" or urlsplit(address).path.endswith(".gz"):
        return fetch(address, target, expected, timeout, retries, progress)
    plain = target.with_name(f".{target.stem}")
    fetch(address, plain, None, timeout, retries, progress)
    with io.atomic(target) as temporary:
        with (
            plain.open("rb") as source,
            temporary.open("wb") as packed,
            igzip.IGzipFile("", "wb", fileobj=packed, mtime=0) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
        plain.unlink()
        if expected not in (None, sha256 := io.sha256(temporary)):
            raise UserError(
                f"{address}: packed, its sha256 is {sha256}, expected {expected}: another file than before, or "
                "packed otherwise; delete the dataset's sources.json if that is right"
            )
    return sha256


def clear(raw: Path, name: str) -> None:
    for path in raw.glob(f".{name}.*"):
        path.unlink(missing_ok=True)
    for path in raw.glob(f"..{name.removesuffix('.gz')}.*"):
        path.unlink(missing_ok=True)


def first(
    addresses: Mapping[str, list[str]], used: Mapping[str, str], earlier: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return role -> addresses, that which gave the file first.

    Args:
        used: role -> address of files that were fetched now.
        earlier: rows of sources.json, for those that were there.
    """
    before = {row["role"]: row["url"] for row in earlier}
    ordered: dict[str, list[str]] = {}
    for role, mirrors in addresses.items():
        came_from = used.get(role) or next((a for a in mirrors if a == before.get(role)), mirrors[0])
        ordered[role] = [came_from, *(a for a in mirrors if a != came_from)]
    return ordered
