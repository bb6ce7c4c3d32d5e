"""An HTTP client for untrusted addresses: address -> bytes, or one status and reason.

Polite: few requests per host and second, retries with growing pauses, Retry-After obeyed for the whole host; hosts that
refuse, are late or ask to wait without end are given up. Safe: every address, of redirects too, is resolved, checked,
and connected to by number, so that no name becomes private between check and use.
"""

import asyncio
import re
import socket
import ssl
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from pipeline.http.addresses import host_of, is_public, is_valid
from pipeline.http.retries import LONGEST_WAIT, LOOKUPS, RETRYABLE, pause, retry_after

MAX_REDIRECTS = 5
LONGEST_ADDRESS = 16_384  # characters; httpx takes four times as many, and servers half
HEADERS = {"User-Agent": "alignrec", "Accept": "image/*", "Accept-Encoding": "identity"}
ONE = httpx.Limits(max_connections=1)
NO_CONNECTION = "no connection"
LENGTH = re.compile(r"[0-9]{1,18}")  # of a body, in its header
IDLE = 64  # connections kept open for a next request, of all hosts together
HOSTS = 4096  # whose state is kept
LONGEST_HOLD = 600.0  # seconds in a row that a host may ask to wait


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


class Failure(Exception):
    """A failed try; `retryable` ones may be tried again, after `wait` seconds if the server says so."""

    def __init__(self, status: str, reason: str, retryable: bool = False, wait: float | None = None) -> None:
        self.status, self.reason, self.retryable, self.wait = status, reason, retryable, wait


@dataclass(eq=False)
class _Host:
    """State of one scheme, name and port."""

    slots: asyncio.Semaphore  # a request takes one
    address: asyncio.Task[str]  # of its name; resolved once
    users: int = 0  # requests that wait for it or are under way
    refused: int = 0  # connections in a row
    late: set[httpx.URL] = field(default_factory=set)  # addresses in a row that were not done in time
    held: float = 0.0  # seconds in a row that it asked to wait
    given_up: tuple[str, str] | None = None  # status and reason of all further requests
    next_at: float = 0.0  # monotonic seconds: no request before

    def failed(self, failure: Failure, give_up: bool) -> Failure:
        """Return the failure to raise, on giving up that of all further requests."""
        if give_up:
            self.given_up = failure.status, failure.reason
            return Failure(*self.given_up)
        return failure

    def refuse_given_up(self) -> None:
        if self.given_up is not None:
            raise Failure(*self.given_up)


class Client:
    """Client of one run, on one event loop; `close` it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # least recently used first
        self._idle: OrderedDict[httpx.AsyncHTTPTransport, _Host] = OrderedDict()  # likewise; a connection each
        self._mirrors = {name: httpx.URL(mirror) for name, mirror in policy.mirrors.items()}
        self._tls = ssl.create_default_context()

    async def close(self) -> None:
        for host in self._hosts.values():
            host.address.cancel()
        for transport in self._idle:
            await transport.aclose()

    async def get(self, address: str) -> Fetched:
        for attempt in range(self.policy.retries + 1):
            try:
                return Fetched(await self._follow(address))
            except Failure as e:
                failure = e
            if not failure.retryable or attempt == self.policy.retries:
                break
            await asyncio.sleep(pause(attempt, failure.wait))
        return Fetched(None, failure.status, failure.reason)

    async def _follow(self, address: str) -> bytes:
        at = parse_address(address)
        for _ in range(MAX_REDIRECTS + 1):
            body = await self._request(at)
            if isinstance(body, bytes):
                return body
            at = parse_address(body, at)
        raise Failure("http_error", f"more than {MAX_REDIRECTS} redirects")

    async def _request(self, url: httpx.URL) -> bytes | str:
        if mirror := self._mirrors.get(host_of(url)):
            url = url.copy_with(scheme=mirror.scheme, host=mirror.host, port=mirror.port)
        host = self._host(url)
        host.users += 1
        try:
            async with host.slots:
                transport = self._connection(host)
                try:
                    return await self._send(host, transport, url)
                finally:
                    await self._keep(host, transport)
        finally:
            host.users -= 1

    def _connection(self, host: _Host) -> httpx.AsyncHTTPTransport:
        transport = next((one for one, its_host in reversed(self._idle.items()) if its_host is host), None)
        if transport is not None:
            del self._idle[transport]
            return transport
        # a transport a connection: httpx's pool looks at all of its connections at every step; transports take
        # no proxy, which would resolve names itself, and keep no cookies
        return httpx.AsyncHTTPTransport(verify=self._tls, limits=ONE, trust_env=False)

    async def _keep(self, host: _Host, transport: httpx.AsyncHTTPTransport) -> None:
        self._idle[transport] = host
        if len(self._idle) > IDLE:
            oldest, _ = self._idle.popitem(last=False)
            await oldest.aclose()

    async def _send(self, host: _Host, transport: httpx.AsyncHTTPTransport, url: httpx.URL) -> bytes | str:
        await self._turn(host)
        try:
            address = await asyncio.shield(host.address)  # one lookup for all requests that wait
        except Failure as e:
            raise host.failed(e, e.status == "unreachable") from None
        try:
            async with asyncio.timeout(self.policy.timeout):
                return await self._exchange(host, transport, url, address)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            host.refused += 1
            failure = Failure("unreachable", NO_CONNECTION, retryable=True)
            raise host.failed(failure, host.refused >= self.policy.give_up_after) from None
        except (TimeoutError, httpx.TimeoutException):
            host.late.add(url)  # addresses instead of tries: a few images that never come do not cost all others
            failure = Failure("timeout", f"not done in {self.policy.timeout:g} s", retryable=True)
            raise host.failed(failure, len(host.late) >= self.policy.give_up_after) from None
        except httpx.TransportError as e:
            raise Failure("unreachable", f"connection cut ({type(e).__name__})", retryable=True) from None

    async def _turn(self, host: _Host) -> None:
        host.refuse_given_up()
        now = time.monotonic()
        at = max(now, host.next_at)
        host.next_at = at + 1 / self.policy.rate
        if at > now:
            await asyncio.sleep(at - now)
            host.refuse_given_up()

    def _busy(self, host: _Host, response: httpx.Response) -> Failure:
        """Let all requests to a host wait, as it said; give it up if that has no end."""
        wait = retry_after(response.headers.get("Retry-After"))
        failure = Failure("http_error", str(response.status_code), retryable=True, wait=wait)
        if wait is None:
            return failure
        free = max(host.next_at, time.monotonic())
        host.next_at = max(free, time.monotonic() + min(wait, LONGEST_WAIT))
        host.held += host.next_at - free
        return host.failed(failure, host.held > LONGEST_HOLD)

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
            if response.status_code in RETRYABLE:
                raise self._busy(host, response)
            body: bytes | str | None = None
            if response.has_redirect_location:
                body = response.headers["Location"]
            elif response.status_code == 200:
                body = await self._body(response)
            host.late.clear()
            host.held = 0.0
            if body is None:
                raise Failure("http_error", str(response.status_code))  # its Retry-After is of one file
            return body
        finally:
            await response.aclose()

    async def _body(self, response: httpx.Response) -> bytes:
        limit = self.policy.max_bytes
        declared = response.headers.get("Content-Length", "")
        if LENGTH.fullmatch(declared) and int(declared) > limit:
            raise Failure("too_large", f"more than {limit} bytes")
        # unpacked here and not by httpx, which has no limit: a small response may unpack to gigabytes
        packed = response.headers.get("Content-Encoding", "") in ("gzip", "x-gzip", "deflate")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        body = bytearray()
        try:
            async for block in response.aiter_raw():
                body += unpack.decompress(block, limit + 1 - len(body)) if unpack else block
                if len(body) > limit:
                    raise Failure("too_large", f"more than {limit} bytes")
        except zlib.error:
            raise Failure("not_an_image", "damaged Content-Encoding") from None
        except httpx.TransportError:
            if not body:
                raise
            raise Failure("truncated", f"connection cut before byte {declared or 'last'}", retryable=True) from None
        if unpack and not unpack.eof:
            raise Failure("truncated", "Content-Encoding cut off", retryable=True)
        return bytes(body)

    def _host(self, url: httpx.URL) -> _Host:
        port = url.port or (443 if url.scheme == "https" else 80)
        name = url.raw_host.decode("ascii")
        key = f"{url.scheme}://{name}:{port}"
        if key not in self._hosts:
            private = {name, host_of(url)} & set(self.policy.private_hosts)
            lookup = asyncio.create_task(_resolve(name, port, bool(private)))
            if len(self._hosts) >= HOSTS:
                in_use = {id(host) for host in self._idle.values()}
                unused = (k for k, host in self._hosts.items() if not host.users and id(host) not in in_use)
                if (oldest := next(unused, None)) is not None:
                    self._hosts.pop(oldest).address.cancel()
            self._hosts[key] = _Host(asyncio.Semaphore(self.policy.per_host), lookup)
        self._hosts.move_to_end(key)
        return self._hosts[key]


def parse_address(address: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(address) if base else httpx.URL(address)
        valid = is_valid(url)
    except (httpx.InvalidURL, ValueError, TypeError):  # names that IDNA refuses are ValueErrors
        raise Failure("blocked", "not a valid address") from None
    if url.scheme not in ("http", "https"):
        raise Failure("blocked", f"scheme '{url.scheme[:20]}' is not http or https")
    if not valid:
        raise Failure("blocked", "not a valid address")
    if len(str(url)) > LONGEST_ADDRESS:
        raise Failure("blocked", f"the address is longer than {LONGEST_ADDRESS:,} characters")
    return url


async def _resolve(name: str, port: int, private: bool) -> str:
    """Return a numeric address of `name`; Failure if one is private and `private` ones are not allowed."""
    loop = asyncio.get_running_loop()
    for attempt in range(LOOKUPS):
        try:
            infos = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            break
        except (OSError, UnicodeError):
            if attempt == LOOKUPS - 1:
                raise Failure("unreachable", f"name not resolved: {name}") from None
            await asyncio.sleep(pause(attempt))
    addresses = [str(info[4][0]) for info in infos]
    if not private and not all(map(is_public, addresses)):
        raise Failure("blocked", f"{name} is inside a private network or this machine")
    return addresses[0]
