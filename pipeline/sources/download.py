"""Downloads the raw files of one dataset, and lists them with checksums."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline import io
from pipeline.errors import UserError
from pipeline.http.fetch import Progress, local
from pipeline.sources import many_files
from pipeline.sources.feature_files import FEATURE, HUB
from pipeline.sources.mirrors import clear, fetch_packed

MISSING = "{}: no such file; it is named under `sources` in the parameters"
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


def names(addresses: Mapping[str, list[str]]) -> dict[str, str]:
    """Return role -> the name its file is stored under, the last part of its first address; UserError if unfit.

    Files of one name, as `baby/image_feat.npy` and `sports/image_feat.npy`, are told apart by their folders.
    """
    paths = {role: _parts(address) for role, (address, *_) in addresses.items()}
    often = Counter(parts[-1] for parts in paths.values())
    names: dict[str, str] = {}
    for role, (address, *_) in addresses.items():
        name = "-".join(part for part in paths[role][-2 if often[paths[role][-1]] > 1 else -1 :] if part)
        if is_folder(address):
            name += many_files.packed_ending(Path(address))
        elif address.startswith(HUB) and not name.endswith(".parquet"):
            name = f"{name}.parquet"
        if not SAFE.fullmatch(name) or name == "sources.json":
            raise UserError(f"{address}: its last part is no usable file name (letters, digits, . _ -)")
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


def is_folder(address: str) -> bool:
    path = _here(address)
    return path is not None and path.is_dir()


def bring(
    address: str, target: Path, expected: str | None, timeout: float, retries: int, progress: Progress
) -> str | None:
    """Fetch one file; as one file also a folder and a dataset of the Hub, whose sha256 is not known yet: None."""
    if not is_folder(address) and not address.startswith(HUB):
        return fetch_packed(address, target, expected, timeout, retries, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.atomic(target) as temporary:
        if address.startswith(HUB):
            many_files.from_hub(address, temporary, retries, progress)
        else:
            many_files.pack(Path(address), temporary)
        if expected not in (None, io.sha256(temporary)):
            raise UserError(f"{address}: its sha256 is not {expected}: it has other rows than before, or than pinned")
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
    """Fetch every file that `raw` lacks, each from the first of its addresses that works.

    Args:
        addresses: role -> URLs or paths.
        raw: folder of the raw files; only whole, checked files appear there.
        expected: role -> sha256 that its file must have.
        timeout: seconds without a byte.
        retries: tries after the first.
        progress: makes the progress callback of one file from its name.

    Returns:
        role -> file name; of those that were fetched now file name -> sha256, and role -> address that gave it.

    Raises:
        UserError: no address of a file works; says why, for each, and which keys take paths.
    """
    stored, hashes, used = names(addresses), dict[str, str](), dict[str, str]()
    for role, name in stored.items():
        one = bring if role.startswith(FEATURE) else fetch_packed
        failures: list[str] = []
        for address in addresses[role]:
            if (raw / name).exists():
                break
            try:
                digest = one(address, raw / name, expected.get(role), timeout, retries, progress(name))
                hashes |= {name: digest} if digest else {}
                used[role] = address
                clear(raw, name)
            except UserError as e:
                failures.append(str(e))
        if not (raw / name).exists():
            raise UserError("; ".join(failures) + _remedy(dataset, addresses, raw, stored))
    return stored, hashes, used


def _remedy(dataset: str, addresses: Mapping[str, list[str]], raw: Path, stored: Mapping[str, str]) -> str:
    lacking = [role for role in stored if _here(addresses[role][0]) is None and not (raw / stored[role]).exists()]
    return f". Files of yours do as well: give paths as {keys(dataset, lacking)}" if lacking else ""


def keys(dataset: str, roles: Iterable[str]) -> str:
    of = (f"features.{role.removeprefix(FEATURE)}" if role.startswith(FEATURE) else role for role in roles)
    return ", ".join(f"sources.{dataset}.{key}" for key in of)


def expectations(
    addresses: Mapping[str, list[str]], pinned: Mapping[str, str], earlier: list[dict[str, Any]]
) -> dict[str, str]:
    """Return role -> sha256 that its file must have: the parameters', else that of the first download.

    Files of this machine may change. UserError if a pinned role is not one of this source's.
    """
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
    dims: Mapping[str, int] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Return what `sources.json` holds: an object a file with role, name, url, bytes, sha256; of raw numbers also dim.

    A local file's url is its name alone, so that it names no folder of the machine. What `hashes` lacks is hashed.
    """
    rows = []
    for role, name in stored.items():
        sha256 = hashes.get(name) or io.sha256(raw / name)
        address = addresses.get(role, [name])[0]
        url = address if _here(address) is None else f"file:{name}"
        size = (raw / name).stat().st_size
        dim = {"dim": dims[role]} if role in dims else {}
        rows.append({"role": role, "name": name, "url": _public(url), "bytes": size, "sha256": sha256} | dim)
    return rows


def local_hashes(addresses: Mapping[str, list[str]], raw: Path, earlier: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return path -> sha256 of the files of this machine that a source names; of a folder, of its files together.

    Where one is gone, its copy in `raw` counts, if that is as an `earlier` sources.json has it: a colleague who pulled
    the copies has no files of their own.

    Raises:
        UserError: a file is missing, and so is its copy.
    """
    copies = {row["role"]: (raw / row["name"], row["sha256"]) for row in earlier}
    found = {}
    for role, path in ((role, _here(a)) for role, mirrors in addresses.items() for a in mirrors):
        if path is None:
            continue
        copy, sha256 = copies.get(role, (None, ""))
        if path.is_file():
            found[str(path)] = io.sha256(path)
        elif path.is_dir():
            found[str(path)] = many_files.sha256(path)
        elif copy is not None and copy.is_file() and io.sha256(copy) == sha256:
            found[str(path)] = sha256
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
