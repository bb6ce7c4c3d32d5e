"""Several addresses of one file: a mirror may pack it otherwise, and which one gave it is kept."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from operator import ne
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
    """Fetch as `http.fetch.fetch`; compress a plain file, to the same bytes each time, for a target ending in .gz."""
    if target.suffix != ".gz" or urlsplit(address).path.endswith(".gz"):
        return fetch(address, target, expected, timeout, retries, progress)
    plain = target.with_name(f".{target.stem}")
    fetch(address, plain, None, timeout, retries, progress)
    with io.atomic(target) as temporary:
        with (
            plain.open("rb") as source,
            temporary.open("wb") as out,
            igzip.IGzipFile("", "wb", fileobj=out, mtime=0) as packed,
        ):
            shutil.copyfileobj(source, packed, 1 << 20)
        plain.unlink()
        if expected not in (None, sha256 := io.sha256(temporary)):
            raise UserError(
                f"{address}: compressed, its sha256 is {sha256}, expected {expected}: the file changed; delete the "
                "dataset's sources.json if that is right"
            )
    return sha256


def clear(raw: Path, name: str) -> None:
    for path in (*raw.glob(f".{name}.*"), *raw.glob(f"..{name.removesuffix('.gz')}.*")):
        path.unlink(missing_ok=True)


def first(
    addresses: Mapping[str, list[str]], used: Mapping[str, str], earlier: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return role -> addresses, beginning with the one that gave the file: `used` now, or `earlier` in sources.json."""
    origins = {row["role"]: row["url"] for row in earlier} | dict(used)
    return {role: sorted(mirrors, key=partial(ne, origins.get(role))) for role, mirrors in addresses.items()}
