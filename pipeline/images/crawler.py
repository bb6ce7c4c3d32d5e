"""Images from untrusted addresses: address -> bytes, or one status and reason.

Polite: few requests per host and second, retries with growing pauses, Retry-After obeyed for the whole host; hosts that
refuse, are late or ask to wait without end are given up.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from pipeline.http.client import (
    MAX_REDIRECTS,
    Blocked,
    Transport,
    Unresolved,
    follow,
    open_client,
    parse,
    within,
)  # fmt: skip
from pipeline.http.retries import LONGEST_WAIT, RETRYABLE, TransientError, retry, retry_after
from pipeline.images.files import Fetched
from pipeline.images.params import RATE

RETRIES = 3  # tries after the first, for transient failures
PER_HOST = 8  # simultaneous requests to one host
GIVE_UP_AFTER = 16  # connections in a row that a host refuses before the rest of its images end as unreachable
HOSTS = 4096  # whose state is kept
LONGEST_HOLD = 600.0  # seconds in a row that a host may ask to wait


class Failure(Exception):
    """A failed try, with the status and reason of the image."""


class Passing(Failure, TransientError):
    """A failed try that another may cure."""

    def __init__(self, status: str, reason: str, wait: float | None = None) -> None:
        Exception.__init__(self, status, reason)
        self.wait = wait


@dataclass(eq=False)
class _Host:
    """State of one scheme, name and port."""

    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(PER_HOST))
    lock: threading.Lock = field(default_factory=threading.Lock)
    refused: int = 0  # connections in a row
    late: set[httpx.URL] = field(default_factory=set)  # addresses in a row that were not done in time
    held: float = 0.0  # seconds in a row that it asked to wait
    given_up: Failure | None = None  # of all further requests
    next_at: float = 0.0  # monotonic seconds: no request before

    def take_turn(self) -> None:
        with self.lock:
            now = time.monotonic()
            at = max(now, self.next_at)
            self.next_at = at + 1 / RATE
        time.sleep(at - now)

    def fail(self, failure: Failure, give_up: bool) -> Failure:
        """Return the failure to raise, on giving up that of all further requests."""
        if give_up:
            self.given_up = failure = Failure(*failure.args)
        return failure


class Crawler(httpx.BaseTransport):
    """Requests images, each host at its pace, and reads whole answers; for many threads."""

    def __init__(self, timeout: float, max_bytes: int, private_hosts: Sequence[str]) -> None:
        self.timeout, self.max_bytes = timeout, max_bytes
        self._inner = Transport(private_hosts)
        self._client = open_client(timeout, timeout / 2, self)
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # least recently used first
        self._lock, self._stopped = threading.Lock(), False

    def stop(self) -> None:
        """Let requests that are not under way fail."""
        self._stopped = True

    def close(self) -> None:
        self._inner.close()

    def get(self, address: str) -> Fetched:
        try:
            return Fetched(retry(lambda: self._try(address), RETRIES + 1))
        except Failure as e:
            return Fetched(None, *e.args)

    def _try(self, address: str) -> bytes:
        try:
            url = parse(address).copy_with(username=None, password=None)
            answer = follow(self._client, self._client.build_request("GET", url, headers={"Accept": "image/*"}))
        except Blocked as e:
            raise Failure("blocked", str(e)) from None
        except httpx.TooManyRedirects:
            raise Failure("http_error", f"more than {MAX_REDIRECTS} redirects") from None
        return answer.read()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        key = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        with self._lock:
            host = self._hosts.setdefault(key, _Host())
            self._hosts.move_to_end(key)
            if len(self._hosts) > HOSTS:
                self._hosts.popitem(last=False)
        with host.slots:
            if host.given_up is None:
                host.take_turn()
            if host.given_up is not None:  # maybe while this waited
                raise Failure(*host.given_up.args)
            if self._stopped:
                raise Failure("unreachable", "stopped")
            return self._send(host, request)

    def _send(self, host: _Host, request: httpx.Request) -> httpx.Response:
        try:
            with within(self.timeout):
                return self._exchange(host, request)
        except (Blocked, Unresolved) as e:
            status = "blocked" if isinstance(e, Blocked) else "unreachable"
            raise host.fail(Failure(status, str(e)), True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout):
            host.refused += 1
            raise host.fail(Passing("unreachable", "no connection"), host.refused >= GIVE_UP_AFTER) from None
        except httpx.TimeoutException:
            host.late.add(request.url)  # addresses, not tries: a few images that never come do not cost all others
            failure = Passing("timeout", f"not done in {self.timeout:g} s")
            raise host.fail(failure, len(host.late) >= GIVE_UP_AFTER) from None
        except httpx.TransportError as e:
            raise Passing("unreachable", f"connection cut ({type(e).__name__})") from None

    def _exchange(self, host: _Host, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        try:
            host.refused = 0
            code = response.status_code
            if code in RETRYABLE:
                raise self._busy(host, response)
            body = self._read(response) if code == 200 else b""
            host.late.clear()
            host.held = 0.0
            if response.has_redirect_location:
                return httpx.Response(code, headers={"Location": response.headers["Location"]})
            if code != 200:
                raise Failure("http_error", str(code))  # its Retry-After is of one file
            return httpx.Response(code, content=body)
        finally:
            response.close()

    def _busy(self, host: _Host, response: httpx.Response) -> Failure:
        """Let all requests to a host wait, as it said; give it up if that has no end."""
        wait = retry_after(response.headers.get("Retry-After"))
        failure = Passing("http_error", str(response.status_code), wait)
        if wait is None:
            return failure
        with host.lock:
            free = max(host.next_at, time.monotonic())
            host.next_at = max(free, time.monotonic() + min(wait, LONGEST_WAIT))
            host.held += host.next_at - free
        return host.fail(failure, host.held > LONGEST_HOLD)

    def _read(self, response: httpx.Response) -> bytes:
        limit, body = self.max_bytes, bytearray()
        # unpacked here and not by httpx, which has no limit: a small response may unpack to gigabytes
        packed = response.headers.get("Content-Encoding", "") in ("gzip", "x-gzip", "deflate")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        try:
            for block in response.iter_raw():
                body += unpack.decompress(block, limit + 1 - len(body)) if unpack else block
                if len(body) > limit:
                    raise Failure("too_large", f"more than {limit} bytes")
        except zlib.error:
            raise Failure("not_an_image", "damaged Content-Encoding") from None
        except httpx.RemoteProtocolError:
            raise Passing("truncated", f"connection cut after {len(body):,} bytes") from None
        if unpack and not unpack.eof:
            raise Passing("truncated", "Content-Encoding cut off")
        return bytes(body)
