"""Downloads the raw files of one dataset, and lists them with checksums."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import ne
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline import io
from pipeline.errors import UserError
from pipeline.http.fetch import Progress, fetch, local
from pipeline.sources import many_files
from pipeline.sources.feature_files import FEATURE, HUB

MISSING = "{}: no such file; it is named under `sources` in the parameters"
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


def names(addresses: Mapping[str, list[str]]) -> dict[str, str]:
    """Return role -> the name its file is stored under: the last part of its first address, with its folder if shared.

    UserError: it is not a safe file name.
    """
    paths = {role: _parts(address) for role, (address, *_) in addresses.items()}
    often = Counter(parts[-1] for parts in paths.values())
    names: dict[str, str] = {}
    for role, (address, *_) in addresses.items():
        name = "-".join(part for part in paths[role][-2 if often[paths[role][-1]] > 1 else -1 :] if part)
        if _is_folder(address):
            name += many_files.packed_ending(Path(address))
        elif address.startswith(HUB) and not name.endswith(".parquet"):
            name = f"{name}.parquet"
        if not SAFE.fullmatch(name) or name == "sources.json":
            raise UserError(f"{address}: invalid file name; use letters, digits, . _ -")
        if name in names.values():
            raise UserError(f"{address}: two files of this dataset are called {name}; rename one")
        names[role] = name
    return names


def _parts(address: str) -> list[str]:
    if address.startswith(HUB):
        return [part.partition("@")[0] for part in address.rstrip("/").split("/")]
    return unquote(urlsplit(address).path).rstrip("/").split("/")


def _here(address: str) -> Path | None:
    return None if address.startswith(HUB) else local(address)


def _is_folder(address: str) -> bool:
    path = _here(address)
    return path is not None and path.is_dir()


def bring(
    address: str, target: Path, expected: str | None, timeout: float, retries: int, progress: Progress
) -> str | None:
    """Fetch an address, also a folder or a dataset of the Hub, as one file; return its sha256 where it is known."""
    if not _is_folder(address) and not address.startswith(HUB):
        return fetch(address, target, expected, timeout, retries, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.atomic(target) as temporary:
        if address.startswith(HUB):
            many_files.from_hub(address, temporary, retries, progress)
        else:
            many_files.pack(Path(address), temporary)
        if expected not in (None, io.sha256(temporary)):
            raise UserError(f"{address}: expected sha256 {expected}: its rows differ from those recorded or pinned")
    return None


def download(
    dataset: str,
    addresses: Mapping[str, list[str]],
    raw: Path,
    expected: Mapping[str, str],
    timeout: float,
    retries: int,
    progress: Callable[[str], Progress],
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Fetch every file that `raw` lacks, each from the first of its addresses that works; `timeout` in seconds.

    Only whole, checked files appear in `raw`; `expected` has the sha256 of a role. Returns role -> file name, and of
    the files fetched by this call name -> sha256 and role -> address. UserError: no address of a file works.
    """
    stored, hashes, used = names(addresses), dict[str, str](), dict[str, str]()
    for role, name in stored.items():
        one = bring if role.startswith(FEATURE) else fetch
        failures: list[str] = []
        for address in addresses[role]:
            if (raw / name).exists():
                break
            try:
                digest = one(address, raw / name, expected.get(role), timeout, retries, progress(name))
                hashes |= {name: digest} if digest else {}
                used[role] = address
                for part in raw.glob(f".{name}.*"):  # of a mirror that broke off
                    part.unlink(missing_ok=True)
            except UserError as e:
                failures.append(str(e))
        if not (raw / name).exists():
            lacking = [r for r in stored if _here(addresses[r][0]) is None and not (raw / stored[r]).exists()]
            remedy = f". Local files work too: give paths as {keys(dataset, lacking)}" if lacking else ""
            raise UserError("; ".join(failures) + remedy)
    return stored, hashes, used


def sort_mirrors(
    addresses: Mapping[str, list[str]], used: Mapping[str, str], earlier: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return role -> addresses, beginning with the one that gave the file: `used` now, or `earlier` in sources.json."""
    origins = {row["role"]: row["url"] for row in earlier} | dict(used)
    return {role: sorted(mirrors, key=partial(ne, origins.get(role))) for role, mirrors in addresses.items()}


def keys(dataset: str, roles: Iterable[str]) -> str:
    of = (f"features.{role.removeprefix(FEATURE)}" if role.startswith(FEATURE) else role for role in roles)
    return ", ".join(f"sources.{dataset}.{key}" for key in of)


def expectations(
    addresses: Mapping[str, list[str]], pinned: Mapping[str, str], earlier: list[dict[str, Any]]
) -> dict[str, str]:
    """Return role -> expected sha256: pinned in the parameters, else that of the first download; local files change."""
    if unknown := sorted(set(pinned) - set(addresses)):
        raise UserError(f"sha256 of '{unknown[0]}': this source has {', '.join(addresses)}")
    before = {(row["role"], row["url"]): row["sha256"] for row in earlier}
    first = {
        role: before[role, _public(address)]
        for role, several in addresses.items()
        for address in reversed(several)
        if _here(address) is None and (role, _public(address)) in before
    }
    return first | dict(pinned)


def listing(
    raw: Path,
    stored: Mapping[str, str],
    addresses: Mapping[str, list[str]],
    hashes: Mapping[str, str],
    dims: Mapping[str, int],
) -> list[dict[str, Any]]:
    """Return the rows of `sources.json`; the url of a local file is only its name, so that it reveals no folder."""
    rows: list[dict[str, Any]] = []
    for role, name in stored.items():
        address, path = addresses.get(role, [name])[0], raw / name
        url = _public(address) if _here(address) is None else f"file:{name}"
        sha256 = hashes.get(name) or io.sha256(path)
        row = {"role": role, "name": name, "url": url, "bytes": path.stat().st_size, "sha256": sha256}
        rows.append(row | ({"dim": dims[role]} if role in dims else {}))
    return rows


def local_hashes(addresses: Mapping[str, list[str]], raw: Path, earlier: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return path -> sha256 of the files and folders of this machine that a source names.

    For a missing file, its copy in `raw` counts if it has the sha256 of `earlier`: `dvc pull` brings only copies.
    """
    copies = {row["role"]: (raw / row["name"], row["sha256"]) for row in earlier}
    found = {}
    local_files = ((role, path) for role, several in addresses.items() for path in filter(None, map(_here, several)))
    for role, path in local_files:
        copy, sha256 = copies.get(role, (path, ""))
        if path.is_dir():
            found[str(path)] = many_files.sha256(path)
        elif path.is_file() or (copy.is_file() and io.sha256(copy) == sha256):
            found[str(path)] = io.sha256(path if path.is_file() else copy)
        else:
            raise UserError(MISSING.format(path))
    return found


def names_local_files(addresses: Mapping[str, list[str]]) -> bool:
    return any(_here(address) is not None for mirrors in addresses.values() for address in mirrors)


def _public(url: str) -> str:
    """Return the address without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment="").geturl()
