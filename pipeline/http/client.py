"""Requests for a file on a web server, from any byte on.

The address is the user's and trusted. A redirect may not lead from https to http, nor to another host inside a private
network or on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.request import getproxies

import httpcore
import httpx

from pipeline.errors import UserError
from pipeline.http.connections import Blocked, Guard, Unresolved, parse, within
from pipeline.http.retries import RETRYABLE, TransientError, retry_after

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "alignrec"}
"""identity: byte offsets are those of the file on the server"""
MAX_REDIRECTS = 10
IDLE = 64  # connections kept open for a next request
RANGE = re.compile(r"bytes ([0-9]{1,18})-")


class Transport(httpx.HTTPTransport):
    """Connects by a Guard; a request's extension `named` is the host that the user named."""

    def __init__(self, named: Any = (), inner: httpcore.NetworkBackend | None = None) -> None:
        super().__init__(limits=httpx.Limits(max_connections=None, max_keepalive_connections=IDLE))
        self.guard = Guard(named, inner)
        self._pool._network_backend = self.guard  # httpx has no argument for it

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if named := request.extensions.get("named"):
            self.guard.named.add(named)
        with within(request.extensions["timeout"]["read"]):
            return super().handle_request(request)


def open_client(
    timeout: float, connect: float | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Return a client that keeps no cookies; `timeout` and `connect` in seconds. A proxy resolves names itself."""
    return httpx.Client(
        timeout=httpx.Timeout(timeout, connect=timeout if connect is None else connect),
        headers=HEADERS,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        transport=transport or (None if _is_proxied() else Transport()),
    )


def _is_proxied() -> bool:
    return not {"http", "https", "all"}.isdisjoint(getproxies())


@contextmanager
def request(
    client: httpx.Client, address: httpx.URL | str, label: str, start: int = 0, validator: str = ""
) -> Iterator[httpx.Response]:
    """Request bytes from `start` on, or all if the file no longer has `validator` (ETag or Last-Modified).

    Yields the response, its body unread; the server may ignore `start`, see `first_byte`. TransientError: a retryable
    status, or a cut connection. UserError: an invalid address, no such host, a forbidden redirect, a bad certificate.
    """
    headers = ({"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})) if start else {}
    try:
        url = parse(address)
        named = {"named": url.raw_host.decode("ascii")}
        response = follow(client, client.build_request("GET", url, headers=headers, extensions=named))
        try:
            if response.status_code in RETRYABLE:
                raise TransientError(f"HTTP {response.status_code}", retry_after(response.headers.get("Retry-After")))
            yield response
        finally:
            response.close()
    except (Blocked, Unresolved, httpx.TooManyRedirects) as e:
        raise UserError(f"{label}: {e}") from None
    except httpx.TransportError as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            raise UserError(f"{label}: the server's certificate is not trusted") from None
        raise TransientError(type(e).__name__) from None


def follow(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Return the answer at the end of redirects, its body unread; Blocked: one leads to a forbidden address."""
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = client.send(request, stream=True, follow_redirects=False)
        except (httpx.RemoteProtocolError, UnicodeError) as e:
            if isinstance(e, UnicodeError) or "location header" in str(e):  # httpx reads it as soon as it comes
                raise Blocked("the server redirects to an invalid address") from None
            raise
        if response.next_request is None:
            return response
        response.close()
        before, request, named = request.url, response.next_request, request.extensions.get("named")
        try:
            host = parse(request.url).raw_host.decode("ascii")
        except Blocked as e:
            raise Blocked(f"the server redirects to an invalid address: {e}") from None
        if named and (before.scheme, request.url.scheme) == ("https", "http"):
            raise Blocked("the server leads away from https; refused")
        if named not in (host, None) and _is_proxied():  # else the connection is checked
            with suppress(Unresolved):  # the proxy may know it
                Guard().look_up(host, tries=1)
    raise httpx.TooManyRedirects("too many redirects")


def first_byte(response: httpx.Response, start: int) -> int:
    """Return the number of the body's first byte, at most `start`; TransientError if its range is later or unknown."""
    if response.status_code != 206:
        return 0
    stated = RANGE.match(response.headers.get("Content-Range", ""))
    if stated is None or int(stated[1]) > start:
        raise TransientError("the server answered with another range")
    return int(stated[1])
