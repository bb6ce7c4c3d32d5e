"""HTTP requests that resume, follow only permitted redirects, and give up on slow servers."""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self
from urllib.request import getproxies

import httpcore
import httpx

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.web.retries import RETRYABLE, Absent, TransientError, retry, retry_after

# no compression, so that byte offsets are those of the file
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "alignrec"}
MAX_REDIRECTS = 10
IDLE = 64  # maximum idle connections
RANGE = re.compile(r"bytes ([0-9]{1,18})-")
HOST = re.compile(rb"[A-Za-z0-9._:-]{1,255}")  # a DNS name or an IP address
LONGEST_ADDRESS = 16_384  # characters; httpx accepts four times as many, servers usually half
LOOKUPS = 3  # attempts to resolve a name
NAMES = 4096  # host names whose IP addresses are cached
WINDOW = 60.0  # seconds of waiting over which throughput is measured
LEAST = 1000  # minimum throughput, bytes per second
_GLOBAL_UNICAST = ipaddress.ip_network(
    "2000::/3"
)  # all of IANA's allocations; the rest is special-purpose
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits
_ISATAP = (0x00005EFE, 0x02005EFE)  # the 32 bits before the embedded IPv4 address (RFC 5214)


# The address that a user gives is trusted. A redirect may not lead from https to http, nor to another host in a private
# network or on this machine. Every host name is resolved once, checked, and connected to by IP address, so that DNS
# cannot return a private address after the check (DNS rebinding).
class Blocked(Exception):
    """The address must not be requested; the message gives the reason."""


class Unresolved(TransientError):
    """The host name does not resolve."""


def is_public(address: str) -> bool:
    # public: globally routable unicast, and no tunnel to an IPv4 address
    ip = ipaddress.ip_address(address.split("%")[0])  # drop the zone index
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        is_tunnel = ip.sixtofour or ip.teredo or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP
        if is_tunnel or ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def parse_url(address: str | httpx.URL) -> httpx.URL:
    try:
        url = httpx.URL(address)
        valid = HOST.fullmatch(url.raw_host) is not None and url.host != ""
        for label in url.raw_host.lower().split(b"."):
            valid = valid and (
                not label.startswith(b"xn--") or label[4:].decode("punycode").isprintable()
            )
    except (httpx.InvalidURL, ValueError, TypeError):  # IDNA errors are ValueErrors
        valid = False
    if (
        not valid
        or url.scheme not in ("http", "https")
        or not (url.port is None or 0 < url.port <= 65535)
    ):
        raise Blocked("not a valid http(s) address")
    if len(str(url)) > LONGEST_ADDRESS:
        raise Blocked(f"the address is longer than {LONGEST_ADDRESS:,} characters")
    return url


def open_client(
    timeout: float, connect: float | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    limits = httpx.Timeout(timeout, connect=timeout if connect is None else connect)
    transport = transport or (None if is_proxied() else Transport())
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.Client(timeout=limits, headers=HEADERS, cookies=cookies, transport=transport)


def is_proxied() -> bool:
    return not {"http", "https", "all"}.isdisjoint(getproxies())


@contextmanager
def request_file(
    client: httpx.Client, address: httpx.URL | str, label: str, start: int = 0, validator: str = ""
) -> Iterator[httpx.Response]:
    """Yield a response from byte `start` (all if `validator` changed); raise TransientError, Absent or UserError."""
    headers = (
        ({"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {}))
        if start
        else {}
    )
    try:
        url = parse_url(address)
        named = {"named": url.raw_host.decode("ascii")}
        response = follow_redirects(
            client, client.build_request("GET", url, headers=headers, extensions=named)
        )
        try:
            code = response.status_code
            if code in RETRYABLE:
                raise TransientError(
                    f"HTTP {code}", retry_after(response.headers.get("Retry-After"))
                )
            if code in (404, 410):
                raise Absent(f"{label}: no such file (HTTP {code})")
            if code in (401, 403):
                raise UserError(
                    f"{label}: access denied (HTTP {code}); are password, signature or HF_TOKEN right?"
                )
            if code not in (200, 206, 416):
                raise UserError(f"{label}: HTTP {code} {response.reason_phrase}")
            yield response
        finally:
            response.close()
    except (Blocked, Unresolved, httpx.TooManyRedirects) as e:
        raise UserError(f"{label}: {e}") from None
    except httpx.TransportError as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            raise UserError(f"{label}: the server's certificate is not trusted") from None
        raise TransientError(type(e).__name__) from None


def follow_redirects(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Send a request and follow its redirects; raise Blocked at a forbidden address. The body stays unread."""
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = client.send(request, stream=True, follow_redirects=False)
        except (
            httpx.RemoteProtocolError,
            httpx.InvalidURL,
            ValueError,
        ) as e:  # httpx parses Location eagerly
            if not isinstance(e, httpx.RemoteProtocolError) or "location header" in str(e):
                raise Blocked("the server redirects to an invalid address") from None
            raise
        if response.next_request is None:
            return response
        response.close()
        before, request, named = request.url, response.next_request, request.extensions.get("named")
        try:
            host = parse_url(request.url).raw_host.decode("ascii")
        except Blocked as e:
            raise Blocked(f"the server redirects to an invalid address: {e}") from None
        if named and (before.scheme, request.url.scheme) == ("https", "http"):
            raise Blocked("the server leads away from https; refused")
        if (
            named not in (host, None) and is_proxied()
        ):  # without a proxy, Guard checks the connection
            with suppress(Unresolved):  # the proxy may resolve it
                Guard().look_up(host)
    raise httpx.TooManyRedirects("too many redirects")


def first_byte(response: httpx.Response, start: int) -> int:
    """Return the offset of the body's first byte; raise TransientError if it is unknown or above `start`."""
    if response.status_code != 206:
        return 0
    stated = RANGE.match(response.headers.get("Content-Range", ""))
    if stated is None or int(stated[1]) > start:
        raise TransientError("the server answered with another range")
    return int(stated[1])


def read_body(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body in chunks; raise TransientError below LEAST bytes per second."""
    # iter_raw without a chunk size: httpx would buffer bytes and lose them when the connection is cut
    source, waited, received = response.iter_raw(), 0.0, 0
    while True:
        started = time.monotonic()
        with limit_time(
            WINDOW
        ):  # a server may stall with bytes outside the body, such as chunk extensions
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


class Transport(httpx.HTTPTransport):
    """Connect through a Guard, which trusts the host in a request's extension `named`."""

    def __init__(
        self, named: Iterable[str] = (), inner: httpcore.NetworkBackend | None = None
    ) -> None:
        super().__init__(limits=httpx.Limits(max_connections=None, max_keepalive_connections=IDLE))
        self.guard = Guard(named, inner)
        self._pool._network_backend = self.guard  # httpx has no public option for this

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if named := request.extensions.get("named"):
            self.guard.named.add(named)
        with limit_time(request.extensions["timeout"]["read"]):
            return super().handle_request(request)


class Guard(httpcore.NetworkBackend):
    """Connect only to public addresses, or to hosts that the user named."""

    def __init__(
        self, named: Iterable[str] = (), inner: httpcore.NetworkBackend | None = None
    ) -> None:
        self.named = {name.lower() for name in named}
        self.look_up = lru_cache(NAMES)(
            lambda host: retry(lambda: self._resolve_host(host), LOOKUPS)
        )
        self._inner = inner or httpcore.SyncBackend()

    def connect_tcp(  # type: ignore[override]
        self, host: str, port: int, timeout: float | None = None, **options: Any
    ) -> _Stream:
        *others, last = self.look_up(host)
        for number in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return _Stream(
                    self._inner.connect_tcp(number, port, _time_left(timeout), **options)
                )
        return _Stream(self._inner.connect_tcp(last, port, _time_left(timeout), **options))

    def _resolve_host(self, host: str) -> list[str]:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Unresolved(f"name not resolved: {host}") from None
        numbers = [str(info[4][0]) for info in found]
        if host not in self.named and not all(map(is_public, numbers)):
            raise Blocked(f"{host} is inside a private network or this machine")
        return numbers


class _Stream(httpcore.NetworkStream):
    """A connection that respects the deadline of `limit_time`."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self.write, self.close, self.get_extra_info = inner.write, inner.close, inner.get_extra_info  # type: ignore[method-assign]

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> Self:
        return type(self)(self._inner.start_tls(ssl_context, server_hostname, _time_left(timeout)))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _time_left(timeout))


_DEADLINE = threading.local()  # `at`: deadline in monotonic seconds, if any


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    # limits the total time of this thread's connects and reads; httpx limits only the time between two bytes
    before = getattr(_DEADLINE, "at", math.inf)
    _DEADLINE.at = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.at = before


def _time_left(timeout: float | None) -> float | None:
    left = min(
        math.inf if timeout is None else timeout,
        getattr(_DEADLINE, "at", math.inf) - time.monotonic(),
    )
    if left <= 0:
        raise httpx.ReadTimeout("the answer takes too long")
    return left if math.isfinite(left) else None
