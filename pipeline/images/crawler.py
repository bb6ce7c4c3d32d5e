"""Images from untrusted addresses: address -> bytes, or one status and reason.

Polite: few requests per host and second, retries with growing pauses, Retry-After obeyed for the whole host; hosts that
refuse, are late or ask to wait without end are given up. A redirect counts as its first address.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache

import httpx

from alignrec.pipeline.http.client import (
    MAX_REDIRECTS,
    Blocked,
    Transport,
    Unresolved,
    follow,
    open_client,
    parse,
    within,
)
from alignrec.pipeline.http.retries import LONGEST_WAIT, RETRYABLE, TransientError, retry, retry_after
from alignrec.pipeline.images.files import Fetched
from alignrec.pipeline.images.params import RATE

RETRIES = 3  # tries after the first, for transient failures
PER_HOST = 8  # simultaneous requests to one host
GIVE_UP_AFTER = 16  # addresses in a row that a host does not answer in time before the rest of its images fail too
HOSTS = 4096  # whose state is kept
LONGEST_HOLD = 600.0  # seconds in a row that a host may ask to wait


class Failure(Exception):
    """A failed try, with the status and reason of the image."""


class TransientFailure(Failure, TransientError):
    """A failed try that another may cure."""

    def __init__(self, status: str, reason: str, wait: float | None = None) -> None:
        Exception.__init__(self, status, reason)
        self.wait = wait


@dataclass(eq=False)
class _Host:
    """State of one scheme, name and port."""

    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(PER_HOST))
    lock: threading.Lock = field(default_factory=threading.Lock)
    # addresses in a row without an answer, and not tries: a few images that never come do not cost all others
    silent: set[httpx.URL] = field(default_factory=set)
    held: float = 0.0  # seconds in a row that it asked to wait
    next_at: float = 0.0  # monotonic seconds: no request before
    given_up: Failure | None = None  # of all further requests

    def take_turn(self) -> None:
        with self.lock:
            now = time.monotonic()
            at = max(now, self.next_at)
            self.next_at = at + 1 / RATE
        time.sleep(at - now)

    def hold(self, seconds: float) -> None:
        with self.lock:
            free = max(self.next_at, time.monotonic())
            self.next_at = max(free, time.monotonic() + min(seconds, LONGEST_WAIT))
            self.held += self.next_at - free

    def fail(self, failure: Failure) -> Failure:
        """Return the failure to raise, when the host is given up that of all further requests."""
        if len(self.silent) >= GIVE_UP_AFTER or self.held > LONGEST_HOLD:
            self.given_up = failure = Failure(*failure.args)
        return failure


class Crawler:
    """Requests images, each host at its pace, and reads whole answers; for many threads."""

    def __init__(self, timeout: float, max_bytes: int, private_hosts: Sequence[str]) -> None:
        self.timeout, self.max_bytes = timeout, max_bytes
        self._client = open_client(timeout, timeout / 2, Transport(private_hosts))
        self._host = lru_cache(HOSTS)(lambda server: _Host())
        self._stopped = False

    def stop(self) -> None:
        """Let requests that are not under way fail."""
        self._stopped = True

    def close(self) -> None:
        self._client.close()

    def get(self, address: str) -> Fetched:
        try:
            url = parse(address).copy_with(username=None, password=None)
            return Fetched(retry(lambda: self._try(url), RETRIES + 1))
        except Blocked as e:
            return Fetched(None, "blocked", str(e))
        except Failure as e:
            return Fetched(None, *e.args)

    def _try(self, url: httpx.URL) -> bytes:
        host = self._host((url.scheme, url.netloc))
        with host.slots:
            if host.given_up is None:
                host.take_turn()
            if host.given_up is not None:  # maybe while this waited
                raise Failure(*host.given_up.args)
            if self._stopped:
                raise Failure("unreachable", "stopped")
            return self._request(host, url)

    def _request(self, host: _Host, url: httpx.URL) -> bytes:
        request = self._client.build_request("GET", url, headers={"Accept": "image/*"})
        try:
            with within(self.timeout), closing(follow(self._client, request)) as response:
                return self._answer(host, response)
        except httpx.TooManyRedirects:
            raise Failure("http_error", f"more than {MAX_REDIRECTS} redirects") from None
        except (Unresolved, httpx.ConnectError, httpx.TimeoutException) as e:
            host.silent.add(url)
            if isinstance(e, Unresolved):
                raise host.fail(Failure("unreachable", str(e))) from None
            if isinstance(e, (httpx.ConnectError, httpx.ConnectTimeout)):
                raise host.fail(TransientFailure("unreachable", "no connection")) from None
            raise host.fail(TransientFailure("timeout", f"not done in {self.timeout:g} s")) from None
        except httpx.TransportError as e:
            raise TransientFailure("unreachable", f"connection cut ({type(e).__name__})") from None

    def _answer(self, host: _Host, response: httpx.Response) -> bytes:
        code = response.status_code
        if code in RETRYABLE:
            wait = retry_after(response.headers.get("Retry-After"))
            if wait is not None:
                host.hold(wait)
            raise host.fail(TransientFailure("http_error", str(code), wait))
        body = self._read(response) if code == 200 else b""
        host.silent.clear()
        host.held = 0.0
        if code != 200:
            raise Failure("http_error", str(code))  # its Retry-After is of one file
        return body

    def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        try:
            for block in response.iter_raw():  # packed bytes, which nobody asked for, are no image
                body += block
                if len(body) > self.max_bytes:
                    raise Failure("too_large", f"more than {self.max_bytes} bytes")
        except httpx.RemoteProtocolError:
            raise TransientFailure("truncated", f"connection cut after {len(body):,} bytes") from None
        return bytes(body)
