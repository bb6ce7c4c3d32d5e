"""Targets: addresses, headers, and whole responses of an in-memory server."""

import math
import socket
from collections.abc import Callable
from functools import cache
from unittest.mock import patch

import httpcore
import httpx

from alignrec import schemas
from alignrec.pipeline.images import access
from alignrec.pipeline.release.stores import open_store
from alignrec.pipeline.web import client
from alignrec.pipeline.web.client import Blocked, parse_url
from alignrec.pipeline.web.download import is_web_page, local_path
from alignrec.pipeline.web.retries import MAX_WAIT_SECONDS, TransientError, retry_after, seconds_to_wait
from tests.hostile import test_network
from tests.hostile.fuzz.target import Target, encoded

ADDRESSES = encoded(["http://e/x?y#z", "https://u:p@e:8080/a b", *test_network.ADDRESSES])
REDIRECTS = encoded([a.replace("{port}", "80") for a in test_network.REDIRECTS])
NUMBER = "203.0.113.9"
BASE = httpx.URL(f"http://{NUMBER}/from")
MAX_BYTES = 50_000


def waited(data: bytes) -> None:
    seconds = retry_after(data.decode("latin-1"))
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
    assert 0 <= seconds_to_wait(3, seconds) <= MAX_WAIT_SECONDS


LONG_ADDRESS = b"https://e/" + b'a b"/' * 12_000
"""three times as long when its characters are quoted"""


def parsed(data: bytes) -> None:
    """Parse an address of an image, or of a redirect; accepted ones can be requested."""
    text = data.decode("utf-8", "surrogateescape")
    for base in (None, BASE):
        try:
            url = parse_url(base.join(text) if base else text)
        except (Blocked, httpx.InvalidURL, ValueError):  # as in `follow_redirects`
            continue
        assert url.scheme in ("http", "https")
        httpx.Request("GET", url.copy_with(host=NUMBER, username=None, password=None))


def answer(head: bytes) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        transport = client.Transport(inner=httpcore.MockBackend([head + data]))
        with (
            client.open_client(1, transport=transport) as web,
            client.request_file(web, f"http://{NUMBER}/x", "x", 4) as response,
        ):
            assert client.first_byte(response, 4) <= 4
            for block in response.iter_raw():
                is_web_page(block)

    return one


def image(data: bytes) -> None:
    here = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (NUMBER, 80))]
    with (
        patch.object(httpcore, "SyncBackend", lambda: httpcore.MockBackend([data])),
        patch.object(socket, "getaddrinfo", lambda *_, **__: here),
        patch.object(access, "RETRIES", 0),
    ):
        web = access.Crawler(1, MAX_BYTES, [NUMBER])
        fetched = web.get(f"http://{NUMBER}/x")
        web.close()
    assert fetched.status in schemas.IMAGE_STATUSES
    assert len(fetched.data or b"") <= MAX_BYTES


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
LOCATIONS = [a + b"\r\nContent-Length: 0\r\n\r\n" for a in [b"/y", b":ttp://[p://[", *ADDRESSES, *REDIRECTS]]
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "


@cache
def targets() -> dict[str, Target]:
    return {
        "retry-after": Target(waited, encoded(list(test_network.RETRY_AFTER))),
        "address": Target(parsed, [*ADDRESSES, LONG_ADDRESS, *REDIRECTS]),
        "download-address": Target(lambda data: local_path(data.decode("utf-8", "replace")), ADDRESSES + REDIRECTS),
        "release-address": Target(
            lambda data: open_store(data.decode("utf-8", "replace")),
            [b"s3://bucket/p", b"hf://datasets/o/n", *ADDRESSES[:4]],
        ),
        "answer": Target(answer(b""), ANSWERS, (TransientError,)),
        "content-range": Target(answer(PARTIAL), RANGES, (TransientError,)),
        "redirect": Target(answer(MOVED), LOCATIONS, (TransientError,)),
        "image-answer": Target(image, [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", *ANSWERS], quick=10),
    }
