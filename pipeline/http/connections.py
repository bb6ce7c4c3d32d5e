"""Connections of all HTTP clients: which addresses they may lead to, and how slow a server may be.

Every name, of redirects too, is looked up once, checked, and connected to by number, so that no name becomes private
between check and use.
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpcore
import httpx

from pipeline.http.retries import TransientError, retry

HOST = re.compile(rb"[A-Za-z0-9._:-]{1,255}")  # a name as DNS has it, or a number
HIGHEST_PORT = 65535
LONGEST_ADDRESS = 16_384  # characters; httpx takes four times as many, and servers half
LOOKUPS = 3  # tries to resolve a name
NAMES = 4096  # whose numbers are kept
WINDOW = 60.0  # seconds of waiting over which the rate is measured
LEAST = 1000  # bytes a second
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA gives out; what lies outside is of special use
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits
_ISATAP = (0x00005EFE, 0x02005EFE)  # bits 32 to 63 from the end, before an IPv4 address (RFC 5214)


class Blocked(Exception):
    """An address that must not be requested; the message says why."""


class Unresolved(TransientError):
    """No host has the name: it is wrong, or there is no network."""


def is_public(address: str) -> bool:
    """Return whether a numeric address is public, and not loopback, private, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address.split("%")[0])  # without an interface name
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _TRANSLATED or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
            inner: ipaddress.IPv4Address | None = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:  # where packets to `ip` may end
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def parse(address: str | httpx.URL) -> httpx.URL:
    """Return an http(s) address whose host is a name or a number, and whose port is one; else raise Blocked."""
    try:
        url = httpx.URL(address)
        valid = HOST.fullmatch(url.raw_host) is not None and url.host != ""
        for label in url.raw_host.lower().split(b"."):
            valid = valid and (not label.startswith(b"xn--") or label[4:].decode("punycode").isprintable())
    except (httpx.InvalidURL, ValueError, TypeError):  # names that IDNA refuses are ValueErrors
        valid = False
    if not valid or url.scheme not in ("http", "https") or not (url.port is None or 0 < url.port <= HIGHEST_PORT):
        raise Blocked("not a valid http(s) address")
    if len(str(url)) > LONGEST_ADDRESS:
        raise Blocked(f"the address is longer than {LONGEST_ADDRESS:,} characters")
    return url


class Guard(httpcore.NetworkBackend):
    """Connects to public addresses, and to private ones of hosts that the user named."""

    def __init__(self, named: Iterable[str] = (), inner: httpcore.NetworkBackend | None = None) -> None:
        self.named = {name.lower() for name in named}
        self._numbers: dict[str, list[str]] = {}
        self._inner = inner or httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:  # type: ignore[override]
        *others, last = self.look_up(host)
        for number in others:
            try:
                return _Stream(self._inner.connect_tcp(number, port, _left(timeout), **options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                pass
        return _Stream(self._inner.connect_tcp(last, port, _left(timeout), **options))

    def look_up(self, host: str, tries: int = LOOKUPS) -> list[str]:
        """Return the numbers of a host; Blocked: one is not public, Unresolved: there are none."""
        if host not in self._numbers:
            numbers = retry(lambda: _numbers(host), tries)
            if host not in self.named and not all(map(is_public, numbers)):
                raise Blocked(f"{host} is inside a private network or this machine")
            if len(self._numbers) >= NAMES:
                self._numbers.clear()
            self._numbers[host] = numbers
        return self._numbers[host]


def _numbers(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unresolved(f"name not resolved: {host}") from None
    return [str(info[4][0]) for info in found]


_DEADLINE = threading.local()  # `at`: monotonic seconds, or absent


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the time for which this thread connects and reads; beyond it httpx.ReadTimeout is raised.

    httpx limits only the time between two bytes, so that a byte now and then never ends.
    """
    before = getattr(_DEADLINE, "at", math.inf)
    _DEADLINE.at = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.at = before


def _left(timeout: float | None) -> float | None:
    left = min(math.inf if timeout is None else timeout, getattr(_DEADLINE, "at", math.inf) - time.monotonic())
    if left <= 0:
        raise httpx.ReadTimeout("the answer takes too long")
    return left if math.isfinite(left) else None


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


class _Stream(httpcore.NetworkStream):
    """A connection that keeps to `within`."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self.write, self.close, self.get_extra_info = inner.write, inner.close, inner.get_extra_info  # type: ignore[method-assign]

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Self:
        return type(self)(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout))
