"""The HTTP client: ranges, forbidden addresses, retries and resumption."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from webserver import Answer, Handler, body, cut, serving, status

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.web import retries
from alignrec.pipeline.web.client import Blocked, Guard, first_byte, limit_time, open_client, request_file
from alignrec.pipeline.web.retries import TransientError, append_blocks, retry


def read(address: str, start: int) -> tuple[int, bytes]:
    """Return the offset of the first byte received, and all bytes."""
    with open_client(2.0) as web, request_file(web, address, "the shop", start) as answer:
        return first_byte(answer, start), answer.read()


def part(first: str) -> Answer:
    """Answer with a range that starts, by its header, at `first`."""

    def answer(request: Handler, before: int) -> None:
        request.begin(206, 3, Content_Range=first)
        request.wfile.write(b"abc")

    return answer


def test_the_body_may_begin_earlier_than_asked_but_not_later() -> None:
    answers = {"/4": part("bytes 4-6/7"), "/2": part("bytes 2-4/7"), "/5": part("bytes 5-7/8")}
    odd = ["bytes */7", "bytes ²-6/7", f"bytes {'9' * 5000}-6/7", "bytes -6/7", "items 4-6/7", "bytes é-"]
    answers |= {f"/odd{number}": part(value) for number, value in enumerate(odd)}
    with serving(answers) as server:
        assert [read(f"{server.address}/{n}", 4) for n in (4, 2)] == [(4, b"abc"), (2, b"abc")]
        refused = [name for name in answers if name not in ("/4", "/2")]
        for name in refused:
            with pytest.raises(TransientError, match="another range"):
                read(f"{server.address}{name}", 4)
        assert [headers["Range"] for headers in server.headers] == ["bytes=4-"] * len(answers)


def test_failures_are_transient_or_final_and_name_no_address_of_the_server() -> None:
    answers = {
        "/busy": status(429, Retry_After="7"),
        "/cut": cut(b"x" * 100, 10),
        "/loop": status(302, Location="/loop"),
    }
    with serving(answers) as server:
        with pytest.raises(TransientError, match="HTTP 429") as busy:
            read(f"{server.address}/busy", 0)
        assert busy.value.wait == 7
        with pytest.raises(TransientError, match=r"^RemoteProtocolError$"):
            read(f"{server.address}/cut", 0)
        with pytest.raises(UserError, match=r"^the shop: too many redirects$"):
            read(f"{server.address}/loop", 0)


@pytest.mark.parametrize("location", ["http://e/y", ""])
def test_an_untrusted_certificate_and_a_redirect_from_https_to_http_are_refused(location: str) -> None:
    requested = []

    def answer(sent: httpx.Request) -> httpx.Response:
        requested.append(str(sent.url))
        if not location:
            raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
        return httpx.Response(302, headers={"Location": location})

    web = open_client(2.0, transport=httpx.MockTransport(answer))
    with (
        pytest.raises(UserError, match=r"^the shop: .*(https|certificate)"),
        request_file(web, "https://e/x", "the shop"),
    ):
        pass
    assert requested == ["https://e/x"]


def test_cookies_are_not_kept() -> None:
    with serving({"/x": body(b"", Set_Cookie="a=b"), "/y": body(b"")}) as server, open_client(2.0) as web:
        for name in "xyy":
            with request_file(web, f"{server.address}/{name}", "the shop"):
                pass
        assert [headers["Cookie"] for headers in server.headers] == [None] * 3


def test_a_name_is_looked_up_once_and_must_be_public_unless_the_user_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def lookup(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        number = {"public": "8.8.8.8", "both": "8.8.8.8"}.get(host, "127.0.0.1")
        return [(0, 0, 0, "", (number, 0)), *([(0, 0, 0, "", ("10.0.0.1", 0))] if host == "both" else [])]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    guard = Guard(["mine"])
    assert [guard.look_up(host) for host in ("public", "public", "mine")] == [["8.8.8.8"], ["8.8.8.8"], ["127.0.0.1"]]
    for host in ("both", "localhost"):
        with pytest.raises(Blocked, match="inside a private network"):
            guard.look_up(host)
    assert asked == ["public", "mine", "both", "localhost"]


def test_the_number_that_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first DNS look-up counts, also for a redirect to the host that the user named."""
    asked, real = [], socket.getaddrinfo

    def lookup(name: str, *args: object, **kwargs: object) -> object:
        if name != "files.invalid":
            return real(name, *args, **kwargs)  # type: ignore[arg-type]
        asked.append(name)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with serving({"/y": body(b"abc")}) as server, serving({}) as other:
        port = other.server_address[1]
        other.answers["/x"] = status(302, Location=f"http://files.invalid:{server.server_address[1]}/y")
        assert read(f"http://files.invalid:{port}/x", 0) == (0, b"abc")
        assert server.headers[0]["Host"] == f"files.invalid:{server.server_address[1]}"
    assert asked == ["files.invalid"]


def test_a_connection_has_the_shorter_of_its_timeout_and_the_time_that_is_left() -> None:
    class Backend(httpcore.MockBackend):
        def connect_tcp(self, host: str, port: int, timeout: float | None = None, **_: Any) -> httpcore.NetworkStream:
            given.append(timeout)
            return httpcore.MockStream([])

    given: list[float | None] = []
    guard = Guard(["127.0.0.1"], Backend([]))
    for timeout in (None, 5.0):
        guard.connect_tcp("127.0.0.1", 80, timeout)
    assert given == [None, 5.0]
    with limit_time(60.0), limit_time(90.0):
        for timeout in (None, 5.0, 100.0):
            guard.connect_tcp("127.0.0.1", 80, timeout)
    assert given[3] == 5.0
    assert all(59.0 < seconds <= 60.0 for seconds in (given[2], given[4]))
    with limit_time(0.0), pytest.raises(httpx.ReadTimeout, match="takes too long"):
        guard.connect_tcp("127.0.0.1", 80, 5.0)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", seconds.append)
    return seconds


def test_retries_end_and_wait_as_asked(slept: list[float]) -> None:
    failures = [TransientError("a", 3.0), TransientError("b", 0.0)]

    def work() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert retry(work, 3) == "done"
    failures += [TransientError("c", 1.0), TransientError("d", 2.0)]
    with pytest.raises(TransientError, match="d"):
        retry(work, 2)
    assert slept == [3.0, 0.0, 1.0]  # nobody waits after the last try


def test_waits_double_and_are_drawn_around_half_a_second() -> None:
    for attempt in range(5):
        waits = [retries.seconds_to_wait(attempt) / 2**attempt for _ in range(200)]
        assert 0.25 <= min(waits) < 0.35
        assert 0.65 < max(waits) <= 0.75
    assert (retries.seconds_to_wait(0, 7.0), retries.seconds_to_wait(20)) == (7.0, retries.MAX_WAIT_SECONDS)


def test_a_file_goes_on_from_its_end_until_tries_bring_too_little(slept: list[float], tmp_path: Path) -> None:
    data, gains = os.urandom(100), [50, 1, 49]

    def reading(start: int) -> Iterator[bytes]:
        gain = gains.pop(0)
        yield data[start : start + gain]
        if start + gain < len(data):
            raise TransientError("cut", 0.0)

    append_blocks(reading, tmp_path / "x", tries=2, min_bytes=10)
    assert (tmp_path / "x").read_bytes() == data
    assert slept == [0.0]  # after a try that brought one byte
    gains += [5, 50, 5, 5]
    with pytest.raises(TransientError):
        append_blocks(reading, tmp_path / "y", tries=2, min_bytes=10)
    assert (tmp_path / "y").stat().st_size == 65
