"""HTTP requests that resume, follow only permitted redirects, and give up on slow servers."""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self
from urllib.request import getproxies

import httpcore
import httpx

from alignrec.pipeline.io.errors import Absent, UserError
from alignrec.pipeline.web.retries import RETRYABLE, TransientError, retry, retry_after

# no compression, so that byte offsets are those of the file
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "alignrec"}
MAX_REDIRECTS = 10
INVALID_REDIRECT = "the server redirects to an invalid address"
MAX_IDLE_CONNECTIONS = 64
RANGE = re.compile(r"bytes ([0-9]{1,18})-")
HOST = re.compile(rb"[A-Za-z0-9._:-]{1,255}")  # a DNS name or an IP address
MAX_ADDRESS_CHARACTERS = 16_384  # httpx accepts four times as many, servers usually half
LOOKUP_ATTEMPTS = 3
MAX_CACHED_HOSTS = 4096  # host names whose IP addresses are cached
SECONDS_PER_RATE = 60.0  # of waiting, over which throughput is measured
MIN_BYTES_PER_SECOND = 1000
# all of IANA's allocations; the rest is special-purpose
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits
_ISATAP = (0x00005EFE, 0x02005EFE)  # the 32 bits before the embedded IPv4 address (RFC 5214)


# The address that a user gives is trusted. A redirect may not lead from https to http, nor to
# another host in a private network or on this machine. Every host name is resolved once, checked,
# and connected to by IP address, so that DNS cannot return a private address after the check (DNS
# rebinding).
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
        is_valid = _is_valid(url)
    except (httpx.InvalidURL, ValueError, TypeError):  # IDNA errors are ValueErrors
        is_valid = False
    if not is_valid:
        raise Blocked("not a valid http(s) address")
    if len(str(url)) > MAX_ADDRESS_CHARACTERS:
        raise Blocked(f"the address is longer than {MAX_ADDRESS_CHARACTERS:,} characters")
    return url


def _is_valid(url: httpx.URL) -> bool:
    if url.scheme not in ("http", "https") or not url.host or not HOST.fullmatch(url.raw_host):
        return False
    for label in url.raw_host.lower().split(b"."):
        if label.startswith(b"xn--") and not label[4:].decode("punycode").isprintable():
            return False
    return url.port is None or 0 < url.port <= 65535


def open_client(
    timeout: float, connect: float | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    if transport is None and not is_proxied():
        transport = Transport()
    return httpx.Client(
        timeout=httpx.Timeout(timeout, connect=timeout if connect is None else connect),
        headers=HEADERS,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        transport=transport,
    )


def is_proxied() -> bool:
    return not {"http", "https", "all"}.isdisjoint(getproxies())


@contextmanager
def request_file(
    client: httpx.Client, address: httpx.URL | str, label: str, start: int = 0, validator: str = ""
) -> Iterator[httpx.Response]:
    """Yield a response from byte `start` (all if `validator` changed).

    Raise TransientError, Absent or UserError.
    """
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        url = parse_url(address)
        extensions = {"named": url.raw_host.decode("ascii")}
        request = client.build_request("GET", url, headers=headers, extensions=extensions)
        with closing(follow_redirects(client, request)) as response:
            _refuse_failure(response, label)
            yield response
    except (Blocked, Unresolved, httpx.TooManyRedirects) as e:
        raise UserError(f"{label}: {e}") from None
    except httpx.TransportError as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            raise UserError(f"{label}: the server's certificate is not trusted") from None
        raise TransientError(type(e).__name__) from None


def _refuse_failure(response: httpx.Response, label: str) -> None:
    code = response.status_code
    if code in RETRYABLE:
        raise TransientError(f"HTTP {code}", retry_after(response.headers.get("Retry-After")))
    if code in (404, 410):
        raise Absent(f"{label}: no such file (HTTP {code})")
    if code in (401, 403):
        raise UserError(
            f"{label}: access denied (HTTP {code}); are password, signature or HF_TOKEN right?"
        )
    if code not in (200, 206, 416):
        raise UserError(f"{label}: HTTP {code} {response.reason_phrase}")


def follow_redirects(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Send a request and follow its redirects; raise Blocked at a forbidden address.

    The body stays unread.
    """
    for _ in range(MAX_REDIRECTS + 1):
        response = _send(client, request)
        if response.next_request is None:
            return response
        response.close()
        _check_redirect(request, response.next_request)
        request = response.next_request
    raise httpx.TooManyRedirects("too many redirects")


def _send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    try:
        return client.send(request, stream=True, follow_redirects=False)
    except httpx.RemoteProtocolError as e:
        if "location header" in str(e):  # httpx parses it eagerly
            raise Blocked(INVALID_REDIRECT) from None
        raise
    except (httpx.InvalidURL, ValueError):
        raise Blocked(INVALID_REDIRECT) from None


def _check_redirect(request: httpx.Request, following: httpx.Request) -> None:
    """Raise Blocked for a redirect that is invalid, leads away from https, or into a private
    network.
    """
    try:
        host = parse_url(following.url).raw_host.decode("ascii")
    except Blocked as e:
        raise Blocked(f"{INVALID_REDIRECT}: {e}") from None

    trusted_host = request.extensions.get("named")
    if trusted_host and (request.url.scheme, following.url.scheme) == ("https", "http"):
        raise Blocked("the server leads away from https; refused")
    if (
        trusted_host not in (host, None) and is_proxied()
    ):  # without a proxy, Guard checks the connection
        with suppress(Unresolved):  # the proxy may resolve it
            Guard().look_up(host)


def first_byte(response: httpx.Response, start: int) -> int:
    """Return the offset of the body's first byte.

    Raise TransientError if it is unknown or above `start`.
    """
    if response.status_code != 206:
        return 0
    stated = RANGE.match(response.headers.get("Content-Range", ""))
    if stated is None or int(stated[1]) > start:
        raise TransientError("the server answered with another range")
    return int(stated[1])


def read_body(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body in chunks; raise TransientError below MIN_BYTES_PER_SECOND."""
    # iter_raw without a chunk size: httpx would buffer bytes and lose them when the connection is
    # cut
    blocks = response.iter_raw()
    waited = 0.0
    received = 0
    while True:
        started = time.monotonic()
        # a server may stall with bytes outside the body, such as chunk extensions
        with limit_time(SECONDS_PER_RATE):
            block = next(blocks, None)
        if block is None:
            return

        waited += time.monotonic() - started
        received += len(block)
        if waited >= SECONDS_PER_RATE:
            if received < MIN_BYTES_PER_SECOND * waited:
                raise TransientError(f"below {MIN_BYTES_PER_SECOND:,} B/s: giving up")
            waited = 0.0
            received = 0
        yield block


class Transport(httpx.HTTPTransport):
    """Connect through a Guard, which trusts the host in a request's extension `named`."""

    def __init__(
        self, named: Iterable[str] = (), inner: httpcore.NetworkBackend | None = None
    ) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS)
        super().__init__(limits=limits)
        self.guard = Guard(named, inner)
        self._pool._network_backend = self.guard  # httpx has no public option for this

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if trusted_host := request.extensions.get("named"):
            self.guard.named.add(trusted_host)
        with limit_time(request.extensions["timeout"]["read"]):
            return super().handle_request(request)


class Guard(httpcore.NetworkBackend):
    """Connect only to public addresses, or to hosts that the user named."""

    def __init__(
        self, named: Iterable[str] = (), inner: httpcore.NetworkBackend | None = None
    ) -> None:
        self.named = {name.lower() for name in named}
        self._inner = inner or httpcore.SyncBackend()

        @lru_cache(MAX_CACHED_HOSTS)
        def look_up(host: str) -> list[str]:
            return retry(lambda: self._resolve_host(host), LOOKUP_ATTEMPTS)

        self.look_up = look_up

    def connect_tcp(  # type: ignore[override]
        self, host: str, port: int, timeout: float | None = None, **options: Any
    ) -> _Stream:
        *first, last = self.look_up(host)
        for number in first:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._connect(number, port, timeout, **options)
        return self._connect(last, port, timeout, **options)

    def _connect(self, number: str, port: int, timeout: float | None, **options: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(number, port, _time_left(timeout), **options))

    def _resolve_host(self, host: str) -> list[str]:
        try:
            addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Unresolved(f"name not resolved: {host}") from None
        numbers = [str(address[4][0]) for address in addresses]
        if host not in self.named and not all(map(is_public, numbers)):
            raise Blocked(f"{host} is inside a private network or this machine")
        return numbers


class _Stream(httpcore.NetworkStream):
    """A connection that respects the deadline of `limit_time`."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self.write = inner.write  # type: ignore[method-assign]
        self.close = inner.close  # type: ignore[method-assign]
        self.get_extra_info = inner.get_extra_info  # type: ignore[method-assign]

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> Self:
        inner = self._inner.start_tls(ssl_context, server_hostname, _time_left(timeout))
        return type(self)(inner)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _time_left(timeout))


_DEADLINE = threading.local()  # `at`: deadline in monotonic seconds, if any


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    # limits the total time of this thread's connects and reads; httpx limits only the time between
    # two bytes
    before = _deadline()
    _DEADLINE.at = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.at = before


def _deadline() -> float:
    return float(getattr(_DEADLINE, "at", math.inf))


def _time_left(timeout: float | None) -> float | None:
    left = min(math.inf if timeout is None else timeout, _deadline() - time.monotonic())
    if left <= 0:
        raise httpx.ReadTimeout("the answer takes too long")
    return left if math.isfinite(left) else None
