"""Bytes from anywhere in a file, what may be tried again, and what is said otherwise."""

import httpx
import pytest
from webserver import Answer, Handler, cut, serving, status

from pipeline.errors import UserError
from pipeline.http import retries
from pipeline.http.ranged import client, first_byte, request
from pipeline.http.retries import TransientError, retry


def read(address: str, start: int) -> tuple[int, bytes]:
    """Return the number of the first byte that came, and all that came."""
    with client(2.0) as web, request(web, address, "the shop", start) as answer:
        return first_byte(answer, start), answer.read()


def part(first: str) -> Answer:
    """Answer with a part that begins, by its header, at `first`."""

    def answer(request: Handler, before: int) -> None:
        request.send_response(206)
        request.send_header("Content-Range", first)
        request.send_header("Content-Length", "3")
        request.end_headers()
        request.wfile.write(b"abc")

    return answer


def redirect(target: str) -> Answer:
    return lambda request, before: request.reply(302, Location=target)


def test_the_body_may_begin_earlier_than_asked_but_not_later() -> None:
    answers = {"/4": part("bytes 4-6/7"), "/2": part("bytes 2-4/7"), "/5": part("bytes 5-7/8"), "/x": part("bytes */7")}
    with serving(answers) as server:
        assert [read(f"{server.address}/{n}", 4) for n in (4, 2)] == [(4, b"abc"), (2, b"abc")]
        for name in ("5", "x"):
            with pytest.raises(TransientError, match="another range"):
                read(f"{server.address}/{name}", 4)
        assert [headers["Range"] for headers in server.headers] == ["bytes=4-"] * 4


def test_what_may_pass_says_when_and_no_message_has_an_address_of_the_server() -> None:
    answers = {"/busy": status(429, Retry_After="7"), "/cut": cut(b"x" * 100, 10), "/loop": redirect("/loop")}
    with serving(answers) as server:
        with pytest.raises(TransientError, match="HTTP 429") as busy:
            read(f"{server.address}/busy", 0)
        assert busy.value.wait == 7
        with pytest.raises(TransientError, match=r"^RemoteProtocolError$"):
            read(f"{server.address}/cut", 0)
        with pytest.raises(UserError, match=r"^the shop: too many redirects$"):
            read(f"{server.address}/loop", 0)


def test_a_certificate_that_is_not_trusted_does_not_pass() -> None:
    def untrusted(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    web = httpx.Client(transport=httpx.MockTransport(untrusted))
    said = r"^the shop: the server's certificate is not trusted$"
    with pytest.raises(UserError, match=said), request(web, "https://e/x", "the shop", 0):
        pass


def test_persistence_ends_and_waits_as_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    failures = [TransientError("a", 3.0), TransientError("b", 0.0)]

    def work() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert retry(work, 3) == "done"
    assert slept == [3.0, 0.0]
    failures += [TransientError("c", 1.0), TransientError("d", 2.0)]
    with pytest.raises(TransientError, match="d"):
        retry(work, 2)
    assert slept == [3.0, 0.0, 1.0]  # nobody waits after the last try
