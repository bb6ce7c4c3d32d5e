"""A polite and wary HTTP client: untrusted address -> bytes, or one status and reason.

Polite: few requests to a host at a time, retries with growing pauses, Retry-After obeyed for the whole host, a host
that does not answer given up. Wary: every address, of every redirect too, is resolved here, checked, and then
connected to by number, so that a name cannot turn private between check and use; bytes and redirects are capped.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from pipeline.retries import LONGEST_WAIT, PASSING, pause, retry_after

MAX_REDIRECTS = 5
LOOKUPS = 3  # tries to resolve a name


class Policy(NamedTuple):
    """What the client may do; units as in config.Images."""

    timeout: float
    retries: int
    per_host: int
    give_up_after: int
    max_bytes: int
    allow_private: bool


class Fetched(NamedTuple):
    """How fetching one address ended: `data`, or a status of schemas.IMAGE_STATUSES with its reason."""

    data: bytes | None
    status: str = "ok"
    reason: str = ""


class _Ended(Exception):
    """This try ended; `passing` failures may be tried again."""

    def __init__(self, status: str, reason: str, passing: bool = False, wait: float | None = None) -> None:
        self.status, self.reason, self.passing, self.wait = status, reason, passing, wait


@dataclass
class _Host:
    """What is known of one scheme, name and port."""

    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    address: asyncio.Task[str]  # of its name; resolved once
    refused: int = 0  # connections in a row
    given_up: str = ""  # why
    open_again: float = field(default=0.0)  # monotonic seconds: no request before


class Web:
    """Client of one run; use as an async context manager."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._hosts: dict[str, _Host] = {}
        self._tls = ssl.create_default_context()

    async def __aenter__(self) -> Web:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        for host in self._hosts.values():
            host.address.cancel()
            await host.client.aclose()

    async def get(self, address: str) -> Fetched:
        """Fetch one http(s) address."""
        for attempt in range(self.policy.retries + 1):
            try:
                async with asyncio.timeout(self.policy.timeout):
                    return Fetched(await self._follow(address))
            except TimeoutError:
                end = _Ended("timeout", f"no picture within {self.policy.timeout:g} s", passing=True)
            except _Ended as e:
                end = e
            if not end.passing or attempt == self.policy.retries:
                break
            await asyncio.sleep(pause(attempt, end.wait))
        return Fetched(None, end.status, end.reason)

    async def _follow(self, address: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                url = httpx.URL(address)
            except (httpx.InvalidURL, ValueError, TypeError):
                raise _Ended("blocked", "not a valid address") from None
            if url.scheme not in ("http", "https") or not url.host:
                raise _Ended("blocked", f"scheme '{url.scheme}' is not http or https")
            found = await self._ask(url)
            if isinstance(found, bytes):
                return found
            address = str(url.join(found))
        raise _Ended("http_error", f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, url: httpx.URL) -> bytes | str:
        """Make one request; return the body, or where a redirect points."""
        host = self._host(url)
        async with host.slots:
            if host.given_up:
                raise _Ended("unreachable", host.given_up)
            await asyncio.sleep(max(0.0, host.open_again - time.monotonic()))
            try:
                address = await asyncio.shield(host.address)
            except _Ended as e:
                host.given_up = e.reason if e.status == "unreachable" else ""
                raise
            try:
                return await self._exchange(host, url, address)
            except (httpx.ConnectError, httpx.ConnectTimeout) as e:
                cause = "connection refused" if "refused" in str(e).lower() else "no connection"
                host.refused += 1
                if host.refused >= self.policy.give_up_after:
                    host.given_up = cause
                raise _Ended("unreachable", cause, passing=not host.given_up) from None
            except httpx.TimeoutException:
                raise TimeoutError from None
            except (httpx.TransportError, httpx.DecodingError) as e:
                raise _Ended("unreachable", f"connection cut ({type(e).__name__})", passing=True) from None

    async def _exchange(self, host: _Host, url: httpx.URL, address: str) -> bytes | str:
        request = host.client.build_request(
            "GET",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode("ascii").rsplit("@", 1)[-1]},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        answer = await host.client.send(request, stream=True)
        try:
            host.refused = 0
            if answer.has_redirect_location:
                return answer.headers["Location"]
            if answer.status_code != 200:
                wait = retry_after(answer.headers.get("Retry-After"))
                if wait is not None:
                    host.open_again = time.monotonic() + min(wait, LONGEST_WAIT)
                raise _Ended("http_error", str(answer.status_code), answer.status_code in PASSING, wait)
            return await self._body(answer)
        finally:
            await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        limit = self.policy.max_bytes
        declared = answer.headers.get("Content-Length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _Ended("too_large", f"more than {limit} bytes")
        body = bytearray()
        async for block in answer.aiter_bytes():
            body += block
            if len(body) > limit:
                raise _Ended("too_large", f"more than {limit} bytes")
        return bytes(body)

    def _host(self, url: httpx.URL) -> _Host:
        port = url.port or (443 if url.scheme == "https" else 80)
        key = f"{url.scheme}://{url.host}:{port}"
        if key not in self._hosts:
            # a client a host: connections are pooled by number, and two names must not share one
            limits = httpx.Limits(max_connections=self.policy.per_host, max_keepalive_connections=self.policy.per_host)
            client = httpx.AsyncClient(verify=self._tls, trust_env=False, limits=limits, timeout=self.policy.timeout,
                                       headers={"User-Agent": "alignrec", "Accept": "image/*"})  # fmt: skip
            lookup = asyncio.create_task(_resolve(url.host, port, self.policy.allow_private))
            self._hosts[key] = _Host(client, asyncio.Semaphore(self.policy.per_host), lookup)
        return self._hosts[key]


async def _resolve(name: str, port: int, allow_private: bool) -> str:
    """Return an address of `name`, if all of them are public or private ones are allowed."""
    loop = asyncio.get_running_loop()
    for attempt in range(LOOKUPS):
        try:
            found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            break
        except (socket.gaierror, UnicodeError):
            if attempt == LOOKUPS - 1:
                raise _Ended("unreachable", f"name not resolved: {name}") from None
            await asyncio.sleep(0.3 * 2**attempt)
    addresses = [str(info[4][0]) for info in found]
    private = [a for a in addresses if not ipaddress.ip_address(a.split("%")[0]).is_global]
    if private and not allow_private:
        raise _Ended("blocked", f"{name} is inside a private network or this machine")
    return addresses[0]
