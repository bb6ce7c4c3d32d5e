"""An HTTP client for untrusted addresses: address -> bytes, or one status and reason.

It is polite: few requests a host and second, retries with growing pauses, Retry-After obeyed for the whole host. A host
that does not answer is given up. It is safe: every address, of redirects too, is resolved here, checked, and connected
to by number. So a name cannot become private between check and use. Bytes and redirects are limited.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import httpx

from pipeline.http.addresses import is_public
from pipeline.http.retries import LONGEST_WAIT, RETRYABLE, pause, retry_after

MAX_REDIRECTS = 5
PORTS = range(1, 65536)
LOOKUPS = 3  # tries to resolve a name
HEADERS = {"User-Agent": "alignrec", "Accept": "image/*", "Accept-Encoding": "identity"}
ONE = httpx.Limits(max_connections=1)
NO_CONNECTION = "no connection"
HOST = re.compile(rb"[A-Za-z0-9._:-]{1,255}")  # a name as DNS has it, or a number


class Policy(NamedTuple):
    """What the client may do; units as in config.Images."""

    timeout: float
    retries: int
    per_host: int
    rate: float
    give_up_after: int
    max_bytes: int
    private_hosts: Sequence[str]
    mirrors: Mapping[str, str]


class Fetched(NamedTuple):
    """How fetching one address ended: `data`, or a status of schemas.IMAGE_STATUSES with its reason."""

    data: bytes | None
    status: str = "ok"
    reason: str = ""


class _Failure(Exception):
    """A failed try; `retryable` ones may be tried again, after `wait` seconds if the server says so."""

    def __init__(self, status: str, reason: str, retryable: bool = False, wait: float | None = None) -> None:
        self.status, self.reason, self.retryable, self.wait = status, reason, retryable, wait


@dataclass
class _Host:
    """State of one scheme, name and port."""

    free: asyncio.LifoQueue[httpx.AsyncHTTPTransport]  # one connection each; a request takes one
    address: asyncio.Task[str]  # of its name; resolved once
    refused: int = 0  # connections in a row
    given_up: str = ""  # why
    next_at: float = 0.0  # monotonic seconds: no request before


class Client:
    """Client of one run, on one event loop; `close` it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._hosts: dict[str, _Host] = {}
        self._mirrors = {name: httpx.URL(mirror) for name, mirror in policy.mirrors.items()}
        self._tls = ssl.create_default_context()

    async def close(self) -> None:
        """Close every connection."""
        for host in self._hosts.values():
            host.address.cancel()
            while not host.free.empty():
                await host.free.get_nowait().aclose()

    async def get(self, address: str) -> Fetched:
        """Fetch one http(s) address."""
        for attempt in range(self.policy.retries + 1):
            try:
                return Fetched(await self._follow(address))
            except _Failure as e:
                failure = e
            if not failure.retryable or attempt == self.policy.retries:
                break
            await asyncio.sleep(pause(attempt, failure.wait))
        return Fetched(None, failure.status, failure.reason)

    async def _follow(self, address: str) -> bytes:
        at = _parsed(address)
        for _ in range(MAX_REDIRECTS + 1):
            body = await self._request(at)
            if isinstance(body, bytes):
                return body
            at = _parsed(body, at)
        raise _Failure("http_error", f"more than {MAX_REDIRECTS} redirects")

    async def _request(self, url: httpx.URL) -> bytes | str:
        """Make one request; return the body, or where a redirect points."""
        if mirror := self._mirrors.get(url.host):
            url = url.copy_with(scheme=mirror.scheme, host=mirror.host, port=mirror.port)
        host = self._host(url)
        transport = await host.free.get()
        try:
            return await self._send(host, transport, url)
        finally:
            host.free.put_nowait(transport)

    async def _send(self, host: _Host, transport: httpx.AsyncHTTPTransport, url: httpx.URL) -> bytes | str:
        if host.given_up:
            raise _Failure("unreachable", host.given_up)
        now = time.monotonic()
        at = max(now, host.next_at)
        host.next_at = at + 1 / self.policy.rate
        if at > now:
            await asyncio.sleep(at - now)
        address = await self._resolved(host)
        try:
            async with asyncio.timeout(self.policy.timeout):
                return await self._exchange(host, transport, url, address)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise self._refused(host) from None
        except (TimeoutError, httpx.TimeoutException):
            raise _Failure("timeout", f"not done in {self.policy.timeout:g} s", retryable=True) from None
        except httpx.TransportError as e:
            raise _Failure("unreachable", f"connection cut ({type(e).__name__})", retryable=True) from None

    async def _resolved(self, host: _Host) -> str:
        try:
            return await asyncio.shield(host.address)  # one lookup for all requests that wait
        except _Failure as e:
            if e.status == "unreachable":
                host.given_up = e.reason
            raise

    def _refused(self, host: _Host) -> _Failure:
        host.refused += 1
        if host.refused >= self.policy.give_up_after:
            host.given_up = NO_CONNECTION
        return _Failure("unreachable", NO_CONNECTION, retryable=not host.given_up)

    async def _exchange(
        self, host: _Host, transport: httpx.AsyncHTTPTransport, url: httpx.URL, address: str
    ) -> bytes | str:
        request = httpx.Request(
            "GET",
            url.copy_with(host=address, username=None, password=None),
            headers=HEADERS | {"Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": {"connect": self.policy.timeout / 2}},
        )
        response = await transport.handle_async_request(request)
        try:
            host.refused = 0
            if response.has_redirect_location:
                return response.headers["Location"]
            if response.status_code != 200:
                wait = retry_after(response.headers.get("Retry-After"))
                if wait is not None:
                    host.next_at = max(host.next_at, time.monotonic() + min(wait, LONGEST_WAIT))
                raise _Failure("http_error", str(response.status_code), response.status_code in RETRYABLE, wait)
            return await self._body(response)
        finally:
            await response.aclose()

    async def _body(self, response: httpx.Response) -> bytes:
        limit = self.policy.max_bytes
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _Failure("too_large", f"more than {limit} bytes")
        # unpacked here and not by httpx, which has no limit: a small response may unpack to gigabytes
        packed = response.headers.get("Content-Encoding", "") in ("gzip", "x-gzip", "deflate")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        body = bytearray()
        try:
            async for block in response.aiter_raw():
                body += unpack.decompress(block, limit + 1 - len(body)) if unpack else block
                if len(body) > limit:
                    raise _Failure("too_large", f"more than {limit} bytes")
        except zlib.error:
            raise _Failure("not_an_image", "damaged Content-Encoding") from None
        except httpx.TransportError:
            if not body:
                raise
            raise _Failure("truncated", f"connection cut before byte {declared or 'last'}", retryable=True) from None
        return bytes(body)

    def _host(self, url: httpx.URL) -> _Host:
        port = url.port or (443 if url.scheme == "https" else 80)
        key = f"{url.scheme}://{url.host}:{port}"
        if key not in self._hosts:
            # a transport a connection: httpx's pool looks at all of its connections at every step; transports take
            # no proxy, which would resolve names itself, and keep no cookies
            free: asyncio.LifoQueue[httpx.AsyncHTTPTransport] = asyncio.LifoQueue()
            for _ in range(self.policy.per_host):
                free.put_nowait(httpx.AsyncHTTPTransport(verify=self._tls, limits=ONE, trust_env=False))
            lookup = asyncio.create_task(_resolve(url.host, port, url.host in self.policy.private_hosts))
            self._hosts[key] = _Host(free, lookup)
        return self._hosts[key]


def _parsed(address: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(address) if base else httpx.URL(address)
        _ = url.host  # which raises what IDNA refuses, when it is read
        if url.port is not None and url.port not in PORTS:
            raise ValueError
    except (httpx.InvalidURL, ValueError, TypeError):
        raise _Failure("blocked", "not a valid address") from None
    if url.scheme not in ("http", "https"):
        raise _Failure("blocked", f"scheme '{url.scheme[:20]}' is not http or https")
    if not HOST.fullmatch(url.raw_host):
        raise _Failure("blocked", "not a valid address")
    return url


async def _resolve(name: str, port: int, private: bool) -> str:
    """Return an address of `name`, if all of them are public or `private` ones are allowed."""
    loop = asyncio.get_running_loop()
    for attempt in range(LOOKUPS):
        try:
            infos = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            break
        except (OSError, UnicodeError):
            if attempt == LOOKUPS - 1:
                raise _Failure("unreachable", f"name not resolved: {name}") from None
            await asyncio.sleep(pause(attempt))
    addresses = [str(info[4][0]) for info in infos]
    if not private and not all(map(is_public, addresses)):
        raise _Failure("blocked", f"{name} is inside a private network or this machine")
    return addresses[0]
