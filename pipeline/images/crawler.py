"""Fetch images from untrusted addresses, with rate limits and back-off per host."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache

import httpx

from alignrec.pipeline.http import client, retries
from alignrec.pipeline.images.files import Fetched, read_limited
from alignrec.pipeline.images.params import RATE

RETRIES = 3  # after the first attempt, for transient failures
PER_HOST = 8  # simultaneous requests to one host
GIVE_UP_AFTER = 16  # consecutive addresses without an answer before a host is given up
HOSTS = 4096  # hosts whose state is kept
LONGEST_HOLD = 600.0  # consecutive seconds of Retry-After before a host is given up


class FailedTry(retries.TransientError):
    """A failed attempt that may be retried."""

    def __init__(self, failure: Fetched, wait: float | None) -> None:
        super().__init__(failure.reason, wait)
        self.failure = failure


@dataclass(eq=False)
class _Host:
    """Rate limit and failures of one server (scheme, name and port)."""

    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(PER_HOST))
    lock: threading.Lock = field(default_factory=threading.Lock)
    # consecutive addresses, not attempts: a few dead images must not block the rest of the host
    silent: set[httpx.URL] = field(default_factory=set)
    held: float = 0.0  # consecutive seconds of Retry-After
    next_at: float = 0.0  # earliest time of the next request, monotonic seconds
    given_up: Fetched | None = None  # outcome of all further requests

    def take_turn(self) -> None:
        with self.lock:
            now = time.monotonic()
            at = max(now, self.next_at)
            self.next_at = at + 1 / RATE
        time.sleep(at - now)

    def hold_back(self, seconds: float) -> None:
        with self.lock:
            free = max(self.next_at, time.monotonic())
            self.next_at = max(free, time.monotonic() + min(seconds, retries.LONGEST_WAIT))
            self.held += self.next_at - free

    def fail_try(self, status: str, reason: str, wait: float | None = None, final: bool = False) -> Fetched:
        """Return the failure if it is final or the host is given up; otherwise raise FailedTry."""
        failure = Fetched(None, status, reason)
        if len(self.silent) >= GIVE_UP_AFTER or self.held > LONGEST_HOLD:
            self.given_up = failure
        elif not final:
            raise FailedTry(failure, wait)
        return failure


class Crawler:
    """Thread-safe HTTP fetcher for images; redirects count towards the host of the first address."""

    def __init__(self, timeout: float, max_bytes: int, private_hosts: Sequence[str]) -> None:
        self.timeout, self.max_bytes = timeout, max_bytes
        self._client = client.open_client(timeout, timeout / 2, client.Transport(private_hosts))
        self._host = lru_cache(HOSTS)(lambda server: _Host())
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True  # requests that have not begun fail

    def close(self) -> None:
        self._client.close()

    def get(self, address: str) -> Fetched:
        try:
            url = client.parse_url(address).copy_with(username=None, password=None)
            return retries.retry(lambda: self._try_once(url), RETRIES + 1)
        except client.Blocked as e:
            return Fetched(None, "blocked", str(e))
        except FailedTry as e:
            return e.failure

    def _try_once(self, url: httpx.URL) -> Fetched:
        host = self._host((url.scheme, url.netloc))
        with host.slots:
            if host.given_up is None:
                host.take_turn()
            if host.given_up is not None:  # possibly while this request waited
                return host.given_up
            if self._stopped:
                return Fetched(None, "unreachable", "stopped")
            request = self._client.build_request("GET", url, headers={"Accept": "image/*"})
            try:
                with (
                    client.limit_time(self.timeout),
                    closing(client.follow_redirects(self._client, request)) as response,
                ):
                    return self._read_answer(host, response)
            except httpx.TooManyRedirects:
                return Fetched(None, "http_error", f"more than {client.MAX_REDIRECTS} redirects")
            except (client.Unresolved, httpx.ConnectError, httpx.TimeoutException) as e:
                host.silent.add(url)
                if isinstance(e, client.Unresolved):
                    return host.fail_try("unreachable", str(e), final=True)
                if isinstance(e, (httpx.ConnectError, httpx.ConnectTimeout)):
                    return host.fail_try("unreachable", "no connection")
                return host.fail_try("timeout", f"not done in {self.timeout:g} s")
            except httpx.TransportError as e:
                raise FailedTry(Fetched(None, "unreachable", f"connection cut ({type(e).__name__})"), None) from None

    def _read_answer(self, host: _Host, response: httpx.Response) -> Fetched:
        code = response.status_code
        if code in retries.RETRYABLE:
            if (wait := retries.retry_after(response.headers.get("Retry-After"))) is not None:
                host.hold_back(wait)
            return host.fail_try("http_error", str(code), wait)
        try:
            # raw bytes: no compression was requested, so a compressed body is not an image
            answer = read_limited(response.iter_raw(), self.max_bytes) if code == 200 else None
        except httpx.RemoteProtocolError:
            cut = f"connection cut after {response.num_bytes_downloaded:,} bytes"
            raise FailedTry(Fetched(None, "truncated", cut), None) from None
        host.silent.clear()
        host.held = 0.0
        return answer or Fetched(None, "http_error", str(code))
