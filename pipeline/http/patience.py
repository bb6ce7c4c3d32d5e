"""Deadlines of downloads: an answer has to begin in time, and to come at a least rate.

httpx limits only the time between two bytes, so that a byte now and then never ends. Behind a proxy, the beginning is
the proxy's to limit.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx

from pipeline.http.retries import TransientError

WINDOW = 60.0  # seconds of waiting over which the rate is measured
LEAST = 1000  # bytes a second


class _Deadline(threading.local):
    at: float | None = None  # monotonic seconds


_DEADLINE = _Deadline()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the time for which this thread reads from `Streams`; beyond it httpx.ReadTimeout is raised."""
    before, _DEADLINE.at = _DEADLINE.at, time.monotonic() + seconds
    try:
        yield
    finally:
        _DEADLINE.at = before


def steady(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a body; TransientError if they come at less than LEAST bytes a second."""
    source, waited, received = iter(blocks), 0.0, 0
    while True:
        started = time.monotonic()
        with within(WINDOW):  # a server may send other bytes than the body's, such as extensions of chunks
            block = next(source, None)
        if block is None:
            return
        waited += time.monotonic() - started
        received += len(block)
        if waited >= WINDOW:
            if received < LEAST * waited:
                raise TransientError(f"below {LEAST:,} B/s: giving up")
            waited, received = 0.0, 0
        yield block


class _Wrapper:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Stream(_Wrapper):
    def start_tls(self, *args: Any, **kwargs: Any) -> Self:
        return type(self)(self._inner.start_tls(*args, **kwargs))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if _DEADLINE.at is not None:
            left = _DEADLINE.at - time.monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("the answer takes too long")
            timeout = left if timeout is None else min(timeout, left)
        return bytes(self._inner.read(max_bytes, timeout))


class Streams(_Wrapper):
    """A network backend of httpcore whose connections keep to `within`."""

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(*args, **kwargs))
