"""Targets: addresses, headers, and whole answers of servers, which come from a server in memory."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import httpcore
import httpx

from pipeline.http import ranged, web
from pipeline.http.addresses import host_of, is_valid
from pipeline.http.fetch import is_web_page, local
from pipeline.http.retries import LONGEST_WAIT, TransientError, pause, retry_after
from pipeline.images.params import Images
from pipeline.remote.stores import store
from tests.hostile import test_network
from tests.hostile.fuzz.target import Target, encoded

ADDRESSES = encoded(["http://e/x?y#z", "https://u:p@e:8080/a b", *test_network.ADDRESSES])
REDIRECTS = encoded([a.replace("{port}", "80") for a in test_network.REDIRECTS])
BASE = httpx.URL("http://203.0.113.9/from")
POLICY = web.Policy(**{name: getattr(Images(retries=0, max_bytes=50_000), name) for name in web.Policy._fields})


def waited(data: bytes) -> None:
    seconds = retry_after(data.decode("latin-1"))
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
    assert 0 <= pause(3, seconds) <= LONGEST_WAIT


LONG_ADDRESS = b"https://e/" + b'a b"/' * 12_000
"""three times as long once its characters are quoted"""


def parsed(data: bytes) -> None:
    """Read an address as of an image, and as one that a page redirects to; what is accepted can be requested."""
    text = data.decode("utf-8", "surrogateescape")
    for base in (None, BASE):
        try:
            url = web.parse_address(text, base)
        except web._Failure:
            continue
        assert url.scheme in ("http", "https")
        assert is_valid(url)
        host_of(url)
        httpx.Request("GET", url.copy_with(host="203.0.113.9", username=None, password=None))


def answer(head: bytes) -> Callable[[bytes], None]:
    """Return what reads data as a server's answer after `head`, as files and releases are fetched."""

    def one(data: bytes) -> None:
        transport = httpx.HTTPTransport()
        transport._pool = httpcore.ConnectionPool(network_backend=httpcore.MockBackend([head + data]))
        with (
            httpx.Client(transport=transport, timeout=1) as client,
            ranged.request(client, "http://203.0.113.9/x", "x", 4) as response,
        ):
            assert ranged.first_byte(response, 4) <= 4
            for block in response.iter_raw():
                is_web_page(block)

    return one


async def _image(data: bytes) -> None:
    client = web.Client(POLICY)
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=httpcore.AsyncMockBackend([data]))
    slots = asyncio.Semaphore(1)
    host = web._Host(slots, asyncio.create_task(_number()))
    client._connection = lambda _: transport  # type: ignore[method-assign]
    client._host = lambda _: host  # type: ignore[method-assign]
    try:
        body = await client._request(web.parse_address("http://203.0.113.9/x"))
        assert len(body) <= POLICY.max_bytes or isinstance(body, str)
        if isinstance(body, str):
            web.parse_address(body, BASE)
    finally:
        await client.close()


async def _number() -> str:
    return "203.0.113.9"


def image(data: bytes) -> None:
    """Read data as a server's answer, as images are fetched."""
    asyncio.run(_image(data))


PARTIAL = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n"
ANSWERS = [
    PARTIAL + b"Content-Range: bytes 4-6/7\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n",
    b"HTTP/1.1 403 no\x1b[31m\xc2\x9b\r\nContent-Length: 0\r\n\r\n",
]
RANGES = [
    b"Content-Range: " + value + b"\r\n\r\nabc" for value in encoded(["bytes 4-6/7", *test_network.CONTENT_RANGES])
]
LOCATIONS = [a + b"\r\nContent-Length: 0\r\n\r\n" for a in [b"/y", *ADDRESSES, *REDIRECTS]]
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "
TARGETS = {
    "retry-after": Target(waited, encoded(list(test_network.RETRY_AFTER))),
    "address": Target(parsed, [*ADDRESSES, LONG_ADDRESS, *REDIRECTS]),
    "download-address": Target(lambda data: local(data.decode("utf-8", "replace")), ADDRESSES + REDIRECTS),
    "release-address": Target(
        lambda data: store(data.decode("utf-8", "replace")), [b"s3://bucket/p", b"hf://datasets/o/n", *ADDRESSES[:4]]
    ),
    "answer": Target(answer(b""), ANSWERS, (TransientError,)),
    "content-range": Target(answer(PARTIAL), RANGES, (TransientError,)),
    "redirect": Target(answer(MOVED), LOCATIONS, (TransientError,)),
    "image-answer": Target(
        image, [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", *ANSWERS], (web._Failure,), quick=10
    ),
}
