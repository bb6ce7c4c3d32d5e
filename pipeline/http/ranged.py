"""Range requests: a file on a web server, from any byte on.

The address is the user's and trusted. A redirect may not lead from https to http, nor to another host inside a private
network or on this machine; the named host keeps its number in redirects.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import getproxies

import httpx

from pipeline.errors import UserError
from pipeline.http import patience
from pipeline.http.addresses import PrivateAddress, host_of, is_valid, resolve
from pipeline.http.retries import RETRYABLE, TransientError, Unresolved, retry_after

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "alignrec"}
"""identity: byte offsets are those of the file on the server"""
MAX_REDIRECTS = 10
RANGE = re.compile(r"bytes ([0-9]{1,18})-")


def client(timeout: float, connect: float | None = None) -> httpx.Client:
    limits = httpx.Timeout(timeout, connect=timeout if connect is None else connect)
    transport = None if _is_proxied() else _Transport()  # a proxy resolves names itself
    return httpx.Client(timeout=limits, headers=HEADERS, transport=transport)


def _is_proxied() -> bool:
    return not {"http", "https", "all"}.isdisjoint(getproxies())


class _Transport(httpx.HTTPTransport):
    """Connects by number to hosts of redirects, so that no name becomes private between check and use."""

    def __init__(self) -> None:
        super().__init__()
        backend: Any = patience.Streams(self._pool._network_backend)
        self._pool._network_backend = backend  # httpx has no argument for it

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with patience.within(request.extensions["timeout"]["read"]):
            return self._by_number(request)

    def _by_number(self, request: httpx.Request) -> httpx.Response:
        numbers = request.extensions.get("numbers")
        if not numbers:
            return super().handle_request(request)
        extensions = request.extensions | {"sni_hostname": request.url.raw_host.decode("ascii")}
        for number in numbers:  # in place of the host's name, which the headers keep
            url = request.url.copy_with(host=number)
            try:
                return super().handle_request(
                    httpx.Request(request.method, url, headers=request.headers, extensions=extensions)
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == numbers[-1]:
                    raise
        raise AssertionError


@contextmanager
def request(
    client: httpx.Client, address: httpx.URL | str, label: str, start: int, validator: str = ""
) -> Iterator[httpx.Response]:
    """Request bytes from `start` on, or all if the file no longer has `validator` (ETag or Last-Modified).

    Yields the response, its body unread; the server may ignore `start`, see `first_byte`. TransientError: a retryable
    status, no such host, or a cut connection. UserError: an invalid address, redirect or certificate.
    """
    headers = ({"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})) if start else {}
    try:
        first = client.build_request("GET", address, headers=headers)
        if not is_valid(first.url):
            raise UserError(f"{label}: not a valid address")
        response = _follow(client, first, label)
        try:
            if response.status_code in RETRYABLE:
                raise TransientError(f"HTTP {response.status_code}", retry_after(response.headers.get("Retry-After")))
            yield response
        finally:
            response.close()
    except httpx.TransportError as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            raise UserError(f"{label}: the server's certificate is not trusted") from None
        raise (_unresolved(e) or TransientError(type(e).__name__, detail=str(e))) from None
    except (httpx.InvalidURL, UnicodeError):
        raise UserError(f"{label}: not a valid address") from None


def _unresolved(error: httpx.TransportError) -> Unresolved | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return Unresolved(host_of(error.request.url))
        cause = cause.__cause__ or cause.__context__
    return None


def _follow(client: httpx.Client, request: httpx.Request, label: str) -> httpx.Response:
    named, numbers = host_of(request.url), list[str]()
    for _ in range(MAX_REDIRECTS + 1):
        here = request.url
        try:
            response = client.send(request, stream=True, follow_redirects=False)
        except (httpx.RemoteProtocolError, UnicodeError) as e:
            if isinstance(e, UnicodeError) or "location header" in str(e):  # httpx reads it as soon as it comes
                raise UserError(f"{label}: the server redirects to an invalid address") from None
            raise
        if response.next_request is None:
            return response
        if host_of(here) == named and not numbers:
            numbers = _peer(response)
        response.close()
        request = response.next_request
        request.extensions["numbers"] = _check_redirect(here, request.url, named, label) or numbers
    raise UserError(f"{label}: too many redirects")


def _peer(response: httpx.Response) -> list[str]:
    stream = response.extensions.get("network_stream")
    if stream is None or _is_proxied():
        return []
    address = stream.get_extra_info("server_addr")
    return [str(address[0])] if address else []


def _check_redirect(here: httpx.URL, there: httpx.URL, named: str, label: str) -> list[str]:
    if there.scheme not in ("http", "https") or not is_valid(there):
        raise UserError(f"{label}: the server redirects to an invalid address")
    if (here.scheme, there.scheme) == ("https", "http"):
        raise UserError(f"{label}: the server leads away from https; refused")
    name = host_of(there)
    if name == named:
        return []
    try:
        return resolve(there.raw_host.decode("ascii"), there.port or (443 if there.scheme == "https" else 80))
    except PrivateAddress:
        raise UserError(
            f"{label}: redirects to {name}, inside a private network or this machine; if that is right, name that "
            "address itself"
        ) from None
    except OSError:
        if _is_proxied():  # the proxy may know it
            return []
        raise Unresolved(name) from None


def first_byte(response: httpx.Response, start: int) -> int:
    """Return the number of the body's first byte, at most `start`; TransientError if its range is later or unknown."""
    if response.status_code != 206:
        return 0
    stated = RANGE.match(response.headers.get("Content-Range", ""))
    if stated is None or int(stated[1]) > start:
        raise TransientError("the server answered with another range")
    return int(stated[1])
