"""Existence and size of files: one short request per address, all at a time."""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import NamedTuple

from pipeline.errors import UserError, one_line
from pipeline.http.fetch import local
from pipeline.sources.feature_files import parts

WAIT = 4.0  # seconds for an answer of a file's addresses: without a network a resolver would take a minute


class Answer(NamedTuple):
    """The outcome for one file."""

    key: str  # parameter that names the file
    address: str  # the one that answered, or the first
    size: int | None = None  # bytes; None: the server does not say
    fault: str = ""  # why no address gives the file; empty where one does


def ask(addresses: Mapping[str, Sequence[str]], wait: float = WAIT) -> Callable[[], list[Answer]]:
    """Start to ask for each file, at its addresses in order; return a function that waits for the answers."""
    found: dict[str, Answer] = {}

    def look(key: str, mirrors: Sequence[str]) -> None:
        faults: list[str] = []
        for address in mirrors:
            try:
                # half of the time is left to resolve names
                found[key] = Answer(key, address, _size(address, wait / 2 / len(mirrors)))
                return
            except UserError as e:
                faults.append(one_line(e))
        found[key] = Answer(key, mirrors[0], None, "; ".join(dict.fromkeys(faults)))

    threads = [Thread(target=look, args=pair, daemon=True) for pair in addresses.items()]  # the exit waits for none
    deadline = time.monotonic() + wait
    for thread in threads:
        thread.start()

    def answers() -> list[Answer]:
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        silent = f"no answer within {wait:g} s"
        return [found.get(key) or Answer(key, own[0], None, f"{own[0]}: {silent}") for key, own in addresses.items()]

    return answers


def _size(address: str, wait: float) -> int | None:
    if (path := local(address)) is not None:
        if path.is_dir():
            return sum(file.stat().st_size for file in parts(path))
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        return path.stat().st_size
    from pipeline.http.client import open_client, request
    from pipeline.http.retries import TransientError

    try:
        with open_client(wait) as client, request(client, address, address) as response:
            headers = response.headers
    except TransientError as e:
        raise UserError(f"{address}: {e}") from None
    if headers.get("content-type", "").startswith("text/html"):
        raise UserError(f"{address}: a web page")
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None
