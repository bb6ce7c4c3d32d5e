"""Hostile servers and addresses: one status or one line each, no forbidden address reached, no wait without end."""

import os
import socket
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import coded
import httpx
import pytest
from webserver import Answer, Handler, body, drip, first, hang, serving, status

from pipeline.errors import UserError
from pipeline.http import patience, ranged, web
from pipeline.http.addresses import is_public
from pipeline.http.fetch import fetch
from pipeline.http.ranged import request
from pipeline.http.retries import retry_after
from pipeline.images import fetcher
from pipeline.images.fetcher import Fetcher, Result
from pipeline.images.files import opened
from pipeline.images.params import Images
from pipeline.release.manifest import File
from pipeline.remote import fetch as fetch_module
from pipeline.remote import stores
from pipeline.remote.fetch import fetch as fetch_release

FAST = Images(timeout=20, retries=0, rate=500, private_hosts=["127.0.0.1"], give_up_after=3, max_bytes=200_000)

RETRY_AFTER: dict[str, float | None] = {
    **dict.fromkeys(("3", " 3 "), 3.0),
    **dict.fromkeys(("²", "٣", "9" * 5000, "-5", "1e9", "inf", "\x00"), None),
    **dict.fromkeys((f"Wed, 21 Oct 2015 07:28:00{zone}" for zone in (" GMT", "")), 0.0),
    **dict.fromkeys((f"Mon, 01 Jan 0001 00:00:00 {zone}" for zone in ("-0000", "+2359")), 0.0),
    **dict.fromkeys((f"Wed, 21 Oct 2015 07:28:00 +{zone}" for zone in ("9999", "9" * 20)), None),
    "Wed, 21 Oct 99999 07:28:00 GMT": None,
}

PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
    *("::", "::1", "fc00::1", "fe80::1%eth0", "ff02::1", "fec0::1", "::127.0.0.1", "::ffff:127.0.0.1"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::"),
    *("2600::5efe:127.0.0.1", "2600::200:5efe:10.0.0.1", "100::1", "5f00::1", "4000::1", "2001:db8::1"),
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::", "2600::5efe:8.8.8.8"]

INVALID = ("blocked", "not a valid address")
ADDRESSES: dict[str, tuple[str, str]] = {
    **dict.fromkeys((f"http://127.0.0.1:{port}/x" for port in ("70000", "0", "-1", "9" * 40)), INVALID),
    **dict.fromkeys((f"http://{host}/" for host in ("xn--€", "⒈com", "a.\u00ad", "%00", "a" * 300)), INVALID),
    **dict.fromkeys((f"http://{host}/" for host in ("a\x00b", "xn--a", "a.XN--55555577")), INVALID),
    "http://[": INVALID,
    "http://xn--ls8h.invalid/": ("unreachable", "name not resolved: xn--ls8h.invalid"),  # emoji, which DNS has
    "http://" + "a" * 80 + "/": ("unreachable", "name not resolved: " + "a" * 80),
}

CONTENT_RANGES = ["bytes ²-6/7", f"bytes {'9' * 5000}-6/7", "bytes -6/7", "bytes */7", "items 4-6/7", "", "bytes é-"]

REDIRECTS: dict[str, str] = {
    "http://localhost:{port}/secret": "redirects to localhost, inside a private network or this machine",
    "http://127.1:{port}/secret": "redirects to 127.1, inside a private network or this machine",
    "http://169.254.169.254/latest": "redirects to 169.254.169.254, inside a private network",
    "http://[::ffff:0:127.0.0.1]:{port}/secret": "inside a private network or this machine",
    "http://127.0.0.1:70000/": "the server redirects to an invalid address",
    "http://xn--a/": "the server redirects to an invalid address",
    "http://⒈com/": "the server redirects to an invalid address",
    "http://[x": "the server redirects to an invalid address",
    "ftp://127.0.0.1/x": "the server redirects to an invalid address",
    "file:///etc/passwd": "the server redirects to an invalid address",
}


def images(urls: list[list[str]], params: Images = FAST) -> list[Result]:
    with closing(opened(params, None)) as local, Fetcher(params, local) as fetching:
        return fetching.fetch(urls)


def endings(results: list[Result]) -> list[tuple[str, str]]:
    return [(result.decoded.status, result.decoded.reason) for result in results]


def raw(address: str, target: Path, retries: int = 0) -> None:
    fetch(address, target, None, 2.0, retries, lambda done, total: None)


def test_retry_after_and_public_addresses() -> None:
    assert {value: retry_after(value) for value in RETRY_AFTER} == RETRY_AFTER
    assert [address for address in PRIVATE if is_public(address)] == []
    assert [address for address in PUBLIC if not is_public(address)] == []


def test_odd_addresses_of_images_and_of_redirects_end_with_a_status() -> None:
    assert dict(zip(ADDRESSES, endings(images([[a] for a in ADDRESSES])), strict=True)) == ADDRESSES
    answers = {f"/{i}": status(302, Location=quoted(address)) for i, address in enumerate(ADDRESSES)}
    with serving(answers) as server:
        results = images([[server.address + path] for path in answers])
    kept = {a: ending for a, ending in zip(ADDRESSES, endings(results), strict=True) if "\x00" not in a}
    assert kept == {a: ending for a, ending in ADDRESSES.items() if "\x00" not in a}


def quoted(address: str) -> str:
    """Return a header's text: http.server writes latin-1, and clients read UTF-8."""
    return address.encode().decode("latin-1").replace("\x00", "%00")


@pytest.mark.parametrize("target", REDIRECTS)
def test_a_download_follows_no_redirect_to_a_forbidden_address(target: str, tmp_path: Path) -> None:
    with serving({"/secret": body(b"secret")}) as server:
        server.answers["/x"] = status(302, Location=quoted(target.format(port=server.server_address[1])))
        server.answers["/manifest.json"] = server.answers["/x"]
        with pytest.raises(UserError, match=REDIRECTS[target]) as of_raw:
            raw(server.address + "/x", tmp_path / "x")
        with pytest.raises(UserError, match=REDIRECTS[target]):
            fetch_release(server.address, tmp_path / "release")
        assert server.asked["/secret"] == 0
    assert "\n" not in str(of_raw.value)


def test_a_download_never_asks_http_after_https() -> None:
    requested = []

    def answer(sent: httpx.Request) -> httpx.Response:
        requested.append(str(sent.url))
        return httpx.Response(302, headers={"Location": "http://e/y"})

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(UserError, match=r"^it: .*https"),
        request(client, "https://e/x", "it", 0),
    ):
        pass
    assert requested == ["https://e/x"]


def test_a_redirect_to_a_public_host_is_followed_by_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ranged, "getproxies", dict)
    monkeypatch.setattr(ranged, "resolve", lambda name, port: ["127.0.0.2", "127.0.0.1"])
    with serving({"/y": status(307, Location="/z"), "/z": body(b"abc")}) as server:
        port = server.server_address[1]
        server.answers["/x"] = status(302, Location=f"http://files.invalid:{port}/y")
        raw(server.address + "/x", tmp_path / "x")
        hosts = [headers["Host"] for headers in server.headers]
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert hosts == [f"127.0.0.1:{port}", f"files.invalid:{port}", f"files.invalid:{port}"]


def test_a_redirect_to_the_named_host_keeps_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked, real = [], socket.getaddrinfo

    def lookup(name: str, *args: object, **kwargs: object) -> object:
        if name != "files.invalid":
            return real(name, *args, **kwargs)  # type: ignore[arg-type]
        asked.append(name)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ranged, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with serving({"/y": body(b"abc")}) as server, serving({}) as other:
        port = other.server_address[1]
        other.answers["/x"] = status(302, Location=f"http://files.invalid:{server.server_address[1]}/y")
        raw(f"http://files.invalid:{port}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert asked == ["files.invalid"]


def endless_continue(request: Handler, before: int) -> None:
    while not request.server.closing.wait(0.05):
        request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.wfile.flush()


def endless_extension(request: Handler, before: int) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"5;")
    while not request.server.closing.wait(0.05):
        request.wfile.write(b"x")
        request.wfile.flush()


STUCK: dict[str, tuple[Answer, str]] = {
    "100 Continue without end": (endless_continue, "ReadTimeout"),
    "a byte now and then": (drip, "below 1,000 B/s"),
    "an extension without end": (endless_extension, "ReadTimeout|RemoteProtocolError"),
}


@pytest.mark.parametrize("case", STUCK)
def test_an_answer_that_never_ends_is_given_up(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, said = STUCK[case]
    monkeypatch.setattr(ranged, "getproxies", dict)
    monkeypatch.setattr(patience, "WINDOW", 1.0)
    monkeypatch.setattr(stores, "TIMEOUT", 1.0)
    monkeypatch.setattr(fetch_module, "TRIES", 1)
    started = time.monotonic()
    with serving({"/x": answer, "/manifest.json": answer}) as server:
        with pytest.raises(UserError, match=said):
            raw(server.address + "/x", tmp_path / "x")
        with pytest.raises(UserError, match=said):
            fetch_release(server.address, tmp_path / "here")
    assert time.monotonic() - started < 15


def test_a_byte_a_connection_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(request: Handler, before: int) -> None:
        at = int(request.headers.get("Range", "bytes=0-")[6:-1])
        request.send_response(206 if at else 200)
        request.send_header("Content-Range", f"bytes {at}-999999/1000000")
        request.send_header("Content-Length", str(1_000_000 - at))
        request.end_headers()
        request.wfile.write(b"x")
        request.close_connection = True

    monkeypatch.setattr(fetch_module, "pause", lambda attempt, wait: 0.0)
    entry = File(path="x", bytes=1_000_000, sha256="0" * 64)
    with serving({"/x": one}) as server:
        meter = fetch_module.Meter(1, lambda *_: None)
        fault = fetch_module.fetch_one(stores.store(server.address), entry, tmp_path, meter)
        assert server.asked["/x"] == fetch_module.TRIES
    assert fault == "x: cut off at 5 of 1,000,000 bytes (RemoteProtocolError)"


@pytest.mark.parametrize("name", ["manifest.json", "items.parquet"])
def test_a_pipe_in_a_folder_that_is_fetched_is_one_line(name: str, tmp_path: Path) -> None:
    release = coded.outputs(tmp_path / "root").release
    (release / name).unlink()
    os.mkfifo(release / name)
    with pytest.raises(UserError, match=rf"{name}: not a plain file"):
        fetch_release(str(release), tmp_path / "here")
    with pytest.raises(UserError, match=r"not a plain file|named pipe"):
        raw(str(release / name), tmp_path / "x")


def test_behind_a_proxy_names_are_the_proxys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {"/x": status(302, Location="http://other.invalid/y"), "/y": body(b"abc"), "/in": redirect_inside}
    with serving(answers) as server:
        monkeypatch.setenv("http_proxy", server.address)
        monkeypatch.setenv("no_proxy", "")
        raw("http://files.invalid/x", tmp_path / "x")
        with pytest.raises(UserError, match="inside a private network"):
            raw("http://files.invalid/in", tmp_path / "in")
    assert (tmp_path / "x").read_bytes() == b"abc"


def redirect_inside(request: Handler, before: int) -> None:
    request.reply(302, Location="http://169.254.169.254/")


@pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1, 2"])
def test_an_odd_length_ends_with_a_status_and_a_line(length: str, tmp_path: Path) -> None:
    with serving({"/x": body(b"abc", Content_Length=quoted(length))}) as server:
        (ending,) = endings(images([[server.address + "/x"]]))
        assert ending[0] == "unreachable"
        with pytest.raises(UserError, match="RemoteProtocolError"):
            raw(server.address + "/x", tmp_path / "x")


def test_an_etag_that_no_header_can_hold_is_not_sent_back(tmp_path: Path) -> None:
    def cut(request: Handler, before: int) -> None:
        request.send_response(200)
        request.send_header("ETag", quoted('"é"'))
        request.send_header("Content-Length", "6")
        request.end_headers()
        request.wfile.write(b"abc")
        request.close_connection = True

    with serving({"/x": first(1, cut, body(b"abcdef"))}) as server:
        raw(server.address + "/x", tmp_path / "x", retries=1)
    assert (tmp_path / "x").read_bytes() == b"abcdef"


# --- hosts


def test_a_host_that_never_answers_is_given_up() -> None:
    params = FAST.model_copy(update={"per_host": 2, "timeout": 2})
    with serving({f"/{i}": hang for i in range(60)}) as server:
        results = images([[f"{server.address}/{i}"] for i in range(60)], params)
        asked = server.asked.total()
    assert set(endings(results)) == {("timeout", "not done in 2 s")}
    assert asked <= 6  # of 60


def test_a_few_images_that_never_come_do_not_cost_a_host_the_others() -> None:
    params = FAST.model_copy(update={"per_host": 1, "retries": 1, "timeout": 1})
    with serving({"/a": hang, "/b": hang, "/c": status(404), "/d": hang, "/e": hang, "/f": status(404)}) as server:
        results = images([[server.address + path] for path in server.answers], params)
    assert [ending[0] for ending in endings(results)] == ["timeout", "timeout", "http_error"] * 2


def test_retry_after_of_one_file_holds_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LONGEST_HOLD", 0.5)  # a host that is held is given up
    with serving({"/gone": status(404, Retry_After="50"), "/x": status(410)}) as server:
        results = images([[server.address + "/gone"], *[[server.address + "/x"]] * 20])
    assert [ending[1] for ending in endings(results)] == ["404"] + ["410"] * 20


def test_a_host_that_asks_to_wait_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LONGEST_WAIT", 0.2)
    monkeypatch.setattr(web, "LONGEST_HOLD", 0.5)
    with serving({f"/{i}": status(503, Retry_After="3600") for i in range(200)}) as server:
        results = images([[f"{server.address}/{i}"] for i in range(200)])
    assert set(endings(results)) == {("http_error", "503")}
    assert server.asked.total() < 100


def test_the_addresses_of_an_item_are_capped() -> None:
    with serving({}) as server:
        many = [[f"{server.address}/{i}" for i in range(1000)]]
        results = images(many)
        assert server.asked.total() == fetcher.CANDIDATES
    assert endings(results) == [("http_error", "404; only the first 32 of 1000 addresses were tried")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux answers on all of 127.0.0.0/8")
def test_idle_connections_are_closed_and_hosts_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "IDLE", 4)
    monkeypatch.setattr(web, "HOSTS", 10)
    looked_up, lookup = list[str](), socket.getaddrinfo
    hosts = [f"127.0.{i // 200}.{1 + i % 200}" for i in range(300)]

    def counted(host: str, *others: Any, **more: Any) -> Any:
        if host in hosts:  # threads of earlier tests may ask for localhost
            looked_up.append(host)
        return lookup(host, *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    params = FAST.model_copy(update={"private_hosts": hosts, "timeout": 60})
    with serving({}, "0.0.0.0") as server, closing(opened(params, None)) as local, Fetcher(params, local) as going:
        before = len(os.listdir("/proc/self/fd"))
        results = going.fetch([[f"http://{host}:{server.server_address[1]}/x"] for host in hosts])
        assert sorted(looked_up) == sorted(hosts)
        time.sleep(0.2)  # the server, in this process too, closes its ends
        assert len(os.listdir("/proc/self/fd")) - before <= 20
        looked_up.clear()
        again = going.fetch([[f"http://{host}:{server.server_address[1]}/x"] for host in hosts])
    assert len(looked_up) >= len(hosts) - (10 + fetcher.WINDOW + 4)  # all but those that were in use
    assert set(endings(results)) == set(endings(again)) == {("http_error", "404")}
