"""Range requests: a file on a web server, from any byte on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from pipeline.errors import UserError
from pipeline.http.retries import RETRYABLE, TransientError, retry_after

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "alignrec"}
"""identity: byte offsets are those of the file on the server"""


def client(timeout: float, connect: float | None = None) -> httpx.Client:
    """Return a client that follows redirects.

    Args:
        timeout: seconds without a byte.
        connect: seconds until there is a connection; `timeout` by default.
    """
    limits = httpx.Timeout(timeout, connect=timeout if connect is None else connect)
    return httpx.Client(timeout=limits, follow_redirects=True, headers=HEADERS)


@contextmanager
def request(
    client: httpx.Client, address: httpx.URL | str, label: str, start: int, validator: str = ""
) -> Iterator[httpx.Response]:
    """Request an address's bytes from `start` on; yield the response, whose body is not read yet.

    Args:
        client: see `client`.
        address: http(s).
        label: the address in errors.
        start: number of the first byte wanted; the server may ignore it, see `first_byte`.
        validator: ETag or Last-Modified of the file that the bytes before `start` are of; another file is sent whole.

    Raises:
        TransientError: a retryable status, or a connection cut now or while the body is read.
        UserError: the address or the server's certificate is invalid.
    """
    headers = ({"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})) if start else {}
    try:
        with client.stream("GET", address, headers=headers) as response:
            if response.status_code in RETRYABLE:
                raise TransientError(f"HTTP {response.status_code}", retry_after(response.headers.get("Retry-After")))
            yield response
    except httpx.TransportError as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            raise UserError(f"{label}: the server's certificate is not trusted") from None
        raise TransientError(type(e).__name__, detail=str(e)) from None
    except httpx.TooManyRedirects:
        raise UserError(f"{label}: too many redirects") from None
    except httpx.InvalidURL:
        raise UserError(f"{label}: not a valid address, or a redirect to one") from None


def first_byte(response: httpx.Response, start: int) -> int:
    """Return the number of the first byte of the response's body: `start`, or less where the server ignored it.

    Raises:
        TransientError: the body begins after `start`, or its range is not stated.
    """
    if response.status_code != 206:
        return 0
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if not first.isdigit() or int(first) > start:
        raise TransientError("the server answered with another range")
    return int(first)
