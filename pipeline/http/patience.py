"""Deadlines of downloads. httpx limits the time between two bytes alone, so that a byte now and then never ends.

An answer has to begin in time, whatever the server says before (`100 Continue` without end); then it has to come at a
least rate. Behind a proxy the first is the proxy's to see to.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx

from pipeline.http.retries import TransientError

WINDOW = 60.0  # seconds over which the rate is measured; waiting alone counts
LEAST = 1000  # bytes a second


class _Deadline(threading.local):
    at: float | None = None  # monotonic seconds


_DEADLINE = _Deadline()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the seconds that this thread reads from `Streams`; beyond them httpx.ReadTimeout is raised."""
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
        with within(WINDOW):  # a server may send what is no part of the body, such as extensions of chunks
            block = next(source, None)
        if block is None:
            return
        waited += time.monotonic() - started
        received += len(block)
        if waited >= WINDOW:
            if received < LEAST * waited:
                raise TransientError(f"{received:,} bytes in {waited:.0f} s; that would take for ever")
            waited, received = 0.0, 0
        yield block


class _Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def start_tls(self, *args: Any, **kwargs: Any) -> Self:
        return type(self)(self._stream.start_tls(*args, **kwargs))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if _DEADLINE.at is not None:
            left = _DEADLINE.at - time.monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("the answer takes too long")
            timeout = left if timeout is None else min(timeout, left)
        return bytes(self._stream.read(max_bytes, timeout))


class Streams:
    """A network backend of httpcore whose connections keep to `within`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._backend.connect_tcp(*args, **kwargs))
