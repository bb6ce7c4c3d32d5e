"""Download a dataset's raw files and list them with checksums.

Check whether files are available.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.runtime.progress import meter
from alignrec.pipeline.runtime.record import intact_record
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

# to wait for all answers: without a network, resolving names would take a minute
WAIT_SECONDS = 4.0
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")

Reply = TypeVar("Reply")
SourceRow = Mapping[str, Any]  # a row of `sources.json`
Addresses = Mapping[str, str]  # role -> address


def fetch_source(run: Run) -> list[SourceRow]:
    """Generate or download the raw files, and list them in `sources.json`."""
    run.drop_altered(run.layout.raw)
    rows: list[SourceRow] = []
    if isinstance(run.source, Generated):
        rows = _generate_files(run, run.source)
    elif isinstance(run.source, Downloaded):
        rows = _download_source(run, run.source)
    io.write_json(run.layout.sources, rows)
    return rows


def _generate_files(run: Run, source: Generated) -> list[SourceRow]:
    raw = run.layout.raw
    run.resume(raw, SOURCES.source_files(source.kind), source.model_dump())
    names = source.make(raw, lambda names: run.progress(names, unit="image"))
    return list_files(raw, names, {})


def _download_source(run: Run, source: Downloaded) -> list[SourceRow]:
    raw = run.layout.raw
    earlier = _read_earlier(run)
    addresses = source.files()
    code = SOURCES.source_files(source.kind)
    run.resume(raw, code, source.model_dump(), local_hashes(addresses))
    _copy_cached(addresses)

    io.write_json(run.layout.sources, earlier)  # the first checksums must survive a failed download
    return download_files(
        run.layout.dataset,
        addresses,
        raw,
        source.sha256,
        earlier,
        run.params[Download],
        lambda name: meter(run.progress(unit="B", what=name)),
    )


def _read_earlier(run: Run) -> list[dict[str, Any]]:
    """Return the rows of `sources.json` of an earlier download, unless it was altered since."""
    if run.layout.sources.exists():
        return io.read_json(run.layout.sources)

    finished = run.out / run.layout.sources.name
    record = intact_record(run.out)
    if record is None or not finished.is_file():
        return []
    if record["files"].get(finished.name) != io.sha256(finished):
        return []
    return io.read_json(finished)


def _copy_cached(addresses: Addresses) -> None:
    """Copy links to DVC's cache, as editing them in place would damage the cache."""
    for path in filter(Path.is_file, local_files(addresses)):
        status = path.stat()
        is_read_only = not status.st_mode & 0o222
        if status.st_nlink > 1 and is_read_only:
            io.copy_file(path, path)


def file_names(addresses: Addresses) -> dict[str, str]:
    """Return role -> file name: the last part of the address, after its folder if ambiguous."""
    path_parts = {}
    for role, address in addresses.items():
        path = unquote(urlsplit(address).path).rstrip("/")
        path_parts[role] = path.split("/")
    counts = Counter(parts[-1] for parts in path_parts.values())

    names: dict[str, str] = {}
    for role, parts in path_parts.items():
        address = addresses[role]
        name = parts[-1]
        if counts[name] > 1:
            name = "-".join(filter(None, parts[-2:]))
        if _is_folder(address):
            name += ".zip" if list_members(Path(address)) else ".parquet"

        if not SAFE_NAME.fullmatch(name) or name == "sources.json":
            raise UserError(f"{address}: invalid file name; use letters, digits, . _ -")
        if name in names.values():
            raise UserError(f"{address}: two files of this dataset are called {name}; rename one")
        names[role] = name
    return names


def _is_folder(address: str) -> bool:
    path = local_path(address)
    return path is not None and path.is_dir()


def download_files(
    dataset: str,
    addresses: Addresses,
    raw: Path,
    pinned: Mapping[str, str],
    earlier: Sequence[SourceRow],
    params: Download,
    progress: Callable[[str], Progress],
) -> list[SourceRow]:
    """Download the files missing in `raw`, and return rows of `sources.json`."""
    names = file_names(addresses)
    expected = expected_hashes(addresses, pinned, earlier)
    urls: dict[str, str] = {}

    for role, name in names.items():
        address, path = addresses[role], raw / name
        urls[role] = _public_address(address, name)
        if path.exists():
            continue
        try:
            if role.startswith(FEATURE) and _is_folder(address):
                _pack_checked(Path(address), path, expected.get(role))
            else:
                timeout, retries = params.timeout, params.retries
                fetch_file(address, path, expected.get(role), timeout, retries, progress(name))
        except UserError as e:
            raise UserError(f"{e}{_suggest_paths(dataset, addresses, raw, names)}") from None

    return list_files(raw, names, urls)


def _pack_checked(folder: Path, target: Path, expected: str | None) -> None:
    with io.atomic(target) as temporary:
        pack_folder(folder, temporary)
        if expected is not None and io.sha256(temporary) != expected:
            raise UserError(
                f"{folder}: expected sha256 {expected}: its rows differ from those pinned"
            )


def _suggest_paths(dataset: str, addresses: Addresses, raw: Path, names: Mapping[str, str]) -> str:
    """Suggest local paths for the remote files that are not downloaded."""
    lacking = []
    for role, name in names.items():
        is_remote = local_path(addresses[role]) is None
        if is_remote and not (raw / name).exists():
            lacking.append(role)
    if not lacking:
        return ""
    return f". Local files work too: give paths as {key_names(dataset, lacking)}"


def key_names(dataset: str, roles: Iterable[str]) -> str:
    keys = []
    for role in roles:
        key = f"features.{role.removeprefix(FEATURE)}" if role.startswith(FEATURE) else role
        keys.append(f"sources.{dataset}.{key}")
    return ", ".join(keys)


def expected_hashes(
    addresses: Addresses, pinned: Mapping[str, str], earlier: Sequence[SourceRow]
) -> dict[str, str]:
    """Return role -> expected sha256: pinned in the parameters, or from the first download of
    remote files.
    """
    unknown = sorted(pinned.keys() - addresses.keys())
    if unknown:
        roles = ", ".join(addresses)
        raise UserError(f"sha256 of '{unknown[0]}': this source has {roles}")

    remote = set()
    for role, address in addresses.items():
        if local_path(address) is None:
            remote.add((role, _public_address(address, "")))

    hashes = {}
    for row in earlier:
        if (row["role"], row["url"]) in remote:
            hashes[row["role"]] = row["sha256"]
    return hashes | dict(pinned)


def list_files(raw: Path, names: Mapping[str, str], urls: Mapping[str, str]) -> list[SourceRow]:
    """Return the rows of `sources.json`."""
    rows: list[SourceRow] = []
    for role, name in names.items():
        row = {
            "role": role,
            "name": name,
            "url": urls.get(role, f"file:{name}"),
            "bytes": (raw / name).stat().st_size,
            "sha256": io.sha256(raw / name),
        }
        rows.append(row)
    return rows


def local_files(addresses: Addresses) -> list[Path]:
    return list(filter(None, map(local_path, addresses.values())))


def local_hashes(addresses: Addresses) -> dict[str, str]:
    hashes = {}
    for path in local_files(addresses):
        is_folder = path.is_dir()
        hashes[str(path)] = folder_sha256(path) if is_folder else io.sha256(io.require_plain(path))
    return hashes


def _public_address(address: str, name: str) -> str:
    # user, password, query and local paths may be secret
    if local_path(address) is not None:
        return f"file:{name}"
    parts = urlsplit(address)
    host = parts.netloc.rsplit("@", 1)[-1]
    return parts._replace(netloc=host, query="", fragment="").geturl()


class Answer(NamedTuple):
    """Availability of one file."""

    address: str
    size: int | None = None  # bytes; None if unknown
    fault: str = ""  # why the address has no file, without the address


def ask_for_files(
    addresses: Mapping[str, str], wait: float = WAIT_SECONDS
) -> Callable[[], dict[str, Answer]]:
    """Check in the background whether files are available.

    The returned function waits for the answers, by key of the addresses.
    """
    questions = {key: partial(_ask_address, address, wait) for key, address in addresses.items()}
    wait_for_answers = ask_in_background(questions, wait)

    def complete() -> dict[str, Answer]:
        answers = wait_for_answers()
        silent = f"no answer within {wait:g} s"
        return {
            key: answers.get(key) or Answer(address, fault=silent)
            for key, address in addresses.items()
        }

    return complete


def ask_in_background(
    questions: Mapping[str, Callable[[], Reply]], wait: float
) -> Callable[[], dict[str, Reply]]:
    """Ask all questions at once, and return a function that waits for the answers, at most `wait`
    seconds.
    """
    answers: dict[str, Reply] = {}

    def ask(key: str) -> None:
        answers[key] = questions[key]()

    # daemons do not delay exit
    threads = [Thread(target=ask, args=[key], daemon=True) for key in questions]
    deadline = time.monotonic() + wait
    for thread in threads:
        thread.start()

    def wait_for_answers() -> dict[str, Reply]:
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return dict(answers)

    return wait_for_answers


def _ask_address(address: str, wait: float) -> Answer:
    try:
        # half of the time remains for resolving names
        return Answer(address, _find_size(address, wait / 2))
    except UserError as e:
        return Answer(address, fault=one_line(e).removeprefix(f"{address}: "))


def _find_size(address: str, wait: float) -> int | None:
    """Return the bytes of a file, or None if a server does not say.

    Raises UserError if it is not available.
    """
    path = local_path(address)
    if path is not None and path.is_dir():
        return sum(file.stat().st_size for file in list_parts(path))
    if path is not None:
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
