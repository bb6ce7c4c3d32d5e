"""Retries with exponential back-off, and appending to a partial file."""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may be transient
MAX_WAIT_SECONDS = 60.0  # even if Retry-After is longer
# ASCII only: str.isdigit accepts digits that float refuses
SECONDS = re.compile(r"\s*([0-9]{1,9})\s*")
MIN_PROGRESS_BYTES = 1 << 16  # new bytes that count as progress
# never write through a planted link; Windows has no such flag
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

Result = TypeVar("Result")


class TransientError(Exception):
    """A failure that a retry may cure; `wait` is the requested delay in seconds."""

    def __init__(self, cause: str, wait: float | None = None) -> None:
        super().__init__(cause)
        self.wait = wait


def retry(work: Callable[[], Result], tries: int) -> Result:
    for attempt in range(tries - 1):
        try:
            return work()
        except TransientError as e:
            time.sleep(seconds_to_wait(attempt, e.wait))
    return work()


def append_blocks(
    read: Callable[[int], Iterator[bytes]],
    part: Path,
    tries: int,
    min_bytes: int = MIN_PROGRESS_BYTES,
    sleep: Callable[[float], object] | None = None,
) -> None:
    """Append to a file what `read(size)` yields.

    Give up after `tries` failures in a row with less than `min_bytes` new bytes.
    """
    failures = 0
    while True:
        with open(part, "ab", opener=_open_plain) as file:
            before = file.tell()
            try:
                for block in read(before):
                    file.write(block)
                    file.flush()  # downloaded bytes survive a kill
                os.fsync(file.fileno())
                return
            except TransientError as e:
                has_progress = part.stat().st_size - before >= min_bytes
                failures = 0 if has_progress else failures + 1
                if failures == tries:
                    raise
                wait = e.wait
        if failures:
            (sleep or time.sleep)(seconds_to_wait(failures - 1, wait))


def _open_plain(path: str, flags: int) -> int:
    return os.open(path, flags | NO_FOLLOW, 0o666)


# `attempt` counts from 0; the delay doubles, with jitter
def seconds_to_wait(attempt: int, requested: float | None = None) -> float:
    if requested is None:
        requested = 2**attempt * random.uniform(0.25, 0.75)
    return min(requested, MAX_WAIT_SECONDS)


def retry_after(value: str | None) -> float | None:
    seconds = SECONDS.fullmatch(value or "")
    return float(seconds[1]) if seconds else None
