"""Download a dataset's raw files and list them with checksums; check whether files are available."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.runtime.progress import meter
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.sources.base import SOURCES, Download, Downloaded, Generated
from alignrec.pipeline.vectors.formats import (
    FEATURE,
    folder_sha256,
    list_members,
    list_parts,
    pack_folder,
)
from alignrec.pipeline.web.download import Progress, fetch_file, local_path

WAIT = (
    4.0  # seconds to wait for all answers: without a network, resolving names would take a minute
)
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")

Row = Mapping[str, Any]  # a row of `sources.json`
Addresses = Mapping[str, Sequence[str]]  # role -> addresses to try in order


def fetch_source(run: Run) -> list[Row]:
    source, raw, params = run.source, run.layout.raw, run.params[Download]
    rows: list[Row] = []
    code = SOURCES.source_files(source.kind)
    run.drop_altered(raw)
    if isinstance(source, Generated):
        run.resume(raw, code, source.model_dump())
        rows = list_files(
            raw, source.make(raw, lambda names: run.progress(names, unit="image")), {}
        )
    elif isinstance(source, Downloaded):
        listed = [
            path
            for path in (run.layout.sources, run.out / run.layout.sources.name)
            if path.exists()
        ]
        earlier: list[dict[str, Any]] = io.read_json(listed[0]) if listed else []
        addresses = source.files()
        run.resume(raw, code, source.model_dump(), local_hashes(addresses))
        # copy links to DVC's cache, as editing them in place would damage the cache
        for path in filter(Path.is_file, local_files(addresses)):
            if path.stat().st_nlink > 1 and not path.stat().st_mode & 0o222:
                with io.atomic(path) as temporary:
                    shutil.copyfile(path, temporary)
        io.write_json(
            run.layout.sources, earlier
        )  # the first checksums must survive a failed download
        rows = download_files(
            run.layout.dataset, addresses, raw, source.sha256, earlier, params,
            lambda name: meter(run.progress(unit="B", what=name)),
        )  # fmt: skip
    io.write_json(run.layout.sources, rows)
    return rows


def file_names(addresses: Addresses) -> dict[str, str]:
    """Return role -> file name: the last part of the first address, prefixed with its folder if ambiguous."""
    paths = {
        role: unquote(urlsplit(several[0]).path).rstrip("/").split("/")
        for role, several in addresses.items()
    }
    often = Counter(parts[-1] for parts in paths.values())
    names: dict[str, str] = {}
    for role, (address, *_) in addresses.items():
        name = "-".join(
            part for part in paths[role][-2 if often[paths[role][-1]] > 1 else -1 :] if part
        )
        if _is_folder(address):
            name += ".zip" if list_members(Path(address)) else ".parquet"
        if not SAFE.fullmatch(name) or name == "sources.json":
            raise UserError(f"{address}: invalid file name; use letters, digits, . _ -")
        if name in names.values():
            raise UserError(f"{address}: two files of this dataset are called {name}; rename one")
        names[role] = name
    return names


def _is_folder(address: str) -> bool:
    return (path := local_path(address)) is not None and path.is_dir()


def download_files(
    dataset: str, addresses: Addresses, raw: Path, pinned: Mapping[str, str], earlier: Sequence[Row],
    params: Download, progress: Callable[[str], Progress],
) -> list[Row]:  # fmt: skip
    """Download the files missing in `raw` from the first address that works; return rows of `sources.json`."""
    stored, expected = file_names(addresses), expected_hashes(addresses, pinned, earlier)
    origins = {row["role"]: row["url"] for row in earlier}
    for role, name in stored.items():
        failures: list[str] = []
        for address in addresses[role]:
            if (raw / name).exists():
                break
            try:
                if role.startswith(FEATURE) and _is_folder(address):
                    with io.atomic(raw / name) as temporary:
                        pack_folder(Path(address), temporary)
                        pin = expected.get(role)
                        if pin not in (None, io.sha256(temporary)):
                            raise UserError(
                                f"{address}: expected sha256 {pin}: its rows differ from those pinned"
                            )
                else:
                    fetch_file(
                        address,
                        raw / name,
                        expected.get(role),
                        params.timeout,
                        params.retries,
                        progress(name),
                    )
                origins[role] = _public_address(address, name)
                for part in raw.glob(f".{name}.*"):  # delete partial downloads from other mirrors
                    part.unlink(missing_ok=True)
            except UserError as e:
                failures.append(str(e))
        if not (raw / name).exists():
            lacking = [
                r
                for r in stored
                if local_path(addresses[r][0]) is None and not (raw / stored[r]).exists()
            ]
            remedy = (
                f". Local files work too: give paths as {key_names(dataset, lacking)}"
                if lacking
                else ""
            )
            raise UserError("; ".join(failures) + remedy)
    urls = {
        role: origins.get(role) or _public_address(addresses[role][0], name)
        for role, name in stored.items()
    }
    return list_files(raw, stored, urls)


def key_names(dataset: str, roles: Iterable[str]) -> str:
    of = (
        f"features.{role.removeprefix(FEATURE)}" if role.startswith(FEATURE) else role
        for role in roles
    )
    return ", ".join(f"sources.{dataset}.{key}" for key in of)


def expected_hashes(
    addresses: Addresses, pinned: Mapping[str, str], earlier: Sequence[Row]
) -> dict[str, str]:
    """Return role -> expected sha256: pinned in the parameters, or from the first download of remote files."""
    if unknown := sorted(set(pinned) - set(addresses)):
        raise UserError(f"sha256 of '{unknown[0]}': this source has {', '.join(addresses)}")
    pairs = [(role, address) for role, mirrors in addresses.items() for address in mirrors]
    remote = {
        (role, _public_address(address, ""))
        for role, address in pairs
        if local_path(address) is None
    }
    return {
        row["role"]: row["sha256"] for row in earlier if (row["role"], row["url"]) in remote
    } | dict(pinned)


def list_files(raw: Path, stored: Mapping[str, str], urls: Mapping[str, str]) -> list[Row]:
    return [
        {
            "role": role,
            "name": name,
            "url": urls.get(role, f"file:{name}"),
            "bytes": (raw / name).stat().st_size,
        }
        | {"sha256": io.sha256(raw / name)}
        for role, name in stored.items()
    ]


def local_files(addresses: Addresses) -> list[Path]:
    return [
        path
        for mirrors in addresses.values()
        for path in map(local_path, mirrors)
        if path is not None
    ]


def local_hashes(addresses: Addresses) -> dict[str, str]:
    paths = local_files(addresses)
    return {
        str(p): folder_sha256(p) if p.is_dir() else io.sha256(io.require_plain(p)) for p in paths
    }


def _public_address(address: str, name: str) -> str:
    # user, password, query and local paths may be secret
    if local_path(address) is not None:
        return f"file:{name}"
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment="").geturl()


class Answer(NamedTuple):
    """Availability of one file."""

    key: str  # parameter key of the file
    address: str  # the address that answered, or the first
    size: int | None = None  # bytes; None if unknown
    fault: str = ""  # error if no address has the file


def ask_for_files(addresses: Addresses, wait: float = WAIT) -> Callable[[], list[Answer]]:
    """Check in the background whether files are available; the returned function waits for the answers."""
    found: dict[str, Answer] = {}

    def look(key: str, mirrors: Sequence[str]) -> None:
        faults: list[str] = []
        for address in mirrors:
            try:
                # half of the time remains for resolving names
                found[key] = Answer(key, address, _find_size(address, wait / 2 / len(mirrors)))
                return
            except UserError as e:
                faults.append(one_line(e))
        found[key] = Answer(key, mirrors[0], None, "; ".join(dict.fromkeys(faults)))

    threads = [
        Thread(target=look, args=pair, daemon=True) for pair in addresses.items()
    ]  # daemons do not delay exit
    deadline = time.monotonic() + wait
    for thread in threads:
        thread.start()

    def answers() -> list[Answer]:
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        silent = f"no answer within {wait:g} s"
        return [
            found.get(key) or Answer(key, own[0], None, f"{own[0]}: {silent}")
            for key, own in addresses.items()
        ]

    return answers


def _find_size(address: str, wait: float) -> int | None:
    if (path := local_path(address)) is not None:
        if path.is_dir():
            return sum(file.stat().st_size for file in list_parts(path))
        return io.require_plain(path).stat().st_size
    from alignrec.pipeline.web.client import open_client, request_file
    from alignrec.pipeline.web.retries import TransientError

    try:
        with open_client(wait) as client, request_file(client, address, address) as response:
            headers = response.headers
    except TransientError as e:
        raise UserError(f"{address}: {e}") from None
    if headers.get("content-type", "").startswith("text/html"):
        raise UserError(f"{address}: a web page")
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None
