"""A file on a web server, from any of its bytes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from pipeline.errors import UserError
from pipeline.http.retries import PASSING, Passing, retry_after

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "alignrec"}
"""identity: bytes are counted as they lie on the server"""


def client(timeout: float, connect: float | None = None) -> httpx.Client:
    """Return a client that follows redirects.

    Args:
        timeout: seconds without a byte.
        connect: seconds until there is a connection; `timeout` by default.
    """
    limits = httpx.Timeout(timeout, connect=timeout if connect is None else connect)
    return httpx.Client(timeout=limits, follow_redirects=True, headers=HEADERS)


@contextmanager
def ask(
    client: httpx.Client, address: httpx.URL | str, shown: str, start: int, same: str = ""
) -> Iterator[httpx.Response]:
    """Ask for an address's bytes from `start` on; yield the answer, whose body is still to be read.

    Args:
        client: see `client`.
        address: http(s).
        shown: the address in errors.
        start: number of the first byte wanted; the server may ignore it, see `first_byte`.
        same: ETag or date of the file that the bytes before `start` are of; of another file all bytes come.

    Raises:
        Passing: the server is in trouble, or the connection was cut, now or while the body is read.
        UserError: the address or the server's certificate is no good.
    """
    headers = ({"Range": f"bytes={start}-"} | ({"If-Range": same} if same else {})) if start else {}
    try:
        with client.stream("GET", address, headers=headers) as answer:
            if answer.status_code in PASSING:
                raise Passing(f"HTTP {answer.status_code}", retry_after(answer.headers.get("Retry-After")))
            yield answer
    except httpx.TransportError as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            raise UserError(f"{shown}: the server's certificate is not trusted") from None
        raise Passing(type(e).__name__, detail=str(e)) from None
    except httpx.TooManyRedirects:
        raise UserError(f"{shown}: too many redirects") from None
    except httpx.InvalidURL:
        raise UserError(f"{shown}: not a valid address, or a redirect to one") from None


def first_byte(answer: httpx.Response, start: int) -> int:
    """Return the number of the first byte of the answer's body: `start`, or less where the server ignored it.

    Raises:
        Passing: the body begins after `start`, or nobody knows where.
    """
    if answer.status_code != 206:
        return 0
    first = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if not first.isdigit() or int(first) > start:
        raise Passing("the server answered with another range")
    return int(first)
