"""Hostile servers and addresses: one status or line each, no forbidden address reached, no endless wait."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from shop import releases
from webserver import Answer, Handler, body, drip, hang, serving, status

from alignrec.pipeline.images import access, fetcher
from alignrec.pipeline.images.access import ImageFiles
from alignrec.pipeline.images.decode import Decoded
from alignrec.pipeline.images.fetcher import Fetcher
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import stores
from alignrec.pipeline.release.fetch import fetch as fetch_release
from alignrec.pipeline.web import client
from alignrec.pipeline.web.client import is_public
from alignrec.pipeline.web.download import fetch_file
from alignrec.pipeline.web.retries import retry_after

FAST = Images(timeout=20, private_hosts=["127.0.0.1"], max_bytes=200_000)

RETRY_AFTER: dict[str, float | None] = {
    **dict.fromkeys(("3", " 3 "), 3.0),
    **dict.fromkeys(("²", "٣", "9" * 5000, "-5", "1e9", "inf", "\x00"), None),
    "Wed, 21 Oct 2015 07:28:00 GMT": None,
}

PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
    *("::", "::1", "fc00::1", "fe80::1%eth0", "ff02::1", "fec0::1", "::127.0.0.1", "::ffff:127.0.0.1"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::"),
    *("2600::5efe:127.0.0.1", "2600::200:5efe:10.0.0.1", "100::1", "5f00::1", "4000::1", "2001:db8::1"),
    *("::ffff:8.8.8.8", "2002:808:808::", "2600::5efe:8.8.8.8"),  # tunnels
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8"]

ADDRESSES: dict[str, str] = {
    **dict.fromkeys((f"http://127.0.0.1:{port}/x" for port in ("70000", "0", "-1", "9" * 40)), "blocked"),
    **dict.fromkeys((f"http://{host}/" for host in ("xn--€", "⒈com", "a.\u00ad", "%00", "a" * 300)), "blocked"),
    **dict.fromkeys((f"http://{host}/" for host in ("a\x00b", "xn--a", "a.XN--55555577")), "blocked"),
    "http://[": "blocked",
    "http://xn--ls8h.invalid/": "blocked",  # emoji, which IDNA refuses
    "http://" + "a" * 80 + "/": "unreachable",
}

REDIRECTS = [
    *("http://localhost:{port}/secret", "http://127.1:{port}/secret", "http://[::ffff:0:127.0.0.1]:{port}/secret"),
    *("http://169.254.169.254/latest", "http://127.0.0.1:70000/", "http://xn--a/", "http://⒈com/", "http://[x"),
    *("ftp://127.0.0.1/x", "file:///etc/passwd"),
]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RETRIES": 0, "RATE": 500.0, "GIVE_UP_AFTER": 3}.items():
        monkeypatch.setattr(access, name, value)


def images(urls: list[list[str]], params: Images = FAST) -> list[Decoded]:
    with closing(ImageFiles()) as local, Fetcher(params, local) as fetching:
        return fetching.fetch_items(urls)


def endings(results: list[Decoded]) -> list[tuple[str, str]]:
    return [(result.status, result.reason) for result in results]


def download(address: str, target: Path, retries: int = 0) -> None:
    fetch_file(address, target, None, 2.0, retries, lambda done, total: None)


def quoted(address: str) -> str:
    """Encode a header: http.server writes latin-1, and clients read UTF-8."""
    return address.encode().decode("latin-1").replace("\x00", "%00")


def test_retry_after_and_public_addresses() -> None:
    assert {value: retry_after(value) for value in RETRY_AFTER} == RETRY_AFTER
    assert [address for address in PRIVATE if is_public(address)] == []
    assert [address for address in PUBLIC if not is_public(address)] == []


def test_odd_addresses_of_images_and_of_redirects_end_with_a_status() -> None:
    found = [result.status for result in images([[address] for address in ADDRESSES])]
    assert dict(zip(ADDRESSES, found, strict=True)) == ADDRESSES
    answers = {f"/{i}": status(302, Location=quoted(address)) for i, address in enumerate(ADDRESSES)}
    with serving(answers) as server:
        found = [result.status for result in images([[server.address + path] for path in answers])]
    assert [a for a, end in zip(ADDRESSES, found, strict=True) if end != ADDRESSES[a] and "\x00" not in a] == []


@pytest.mark.parametrize("target", REDIRECTS)
def test_a_download_follows_no_redirect_to_a_forbidden_address(target: str, tmp_path: Path) -> None:
    with serving({"/secret": body(b"secret")}) as server:
        moved = status(302, Location=quoted(target.format(port=server.server_address[1])))
        server.answers |= {"/x": moved, "/manifest.json": moved}
        for work in (lambda: download(server.address + "/x", tmp_path / "x"),
                     lambda: fetch_release(server.address, tmp_path / "release")):  # fmt: skip
            with pytest.raises(UserError) as e:
                work()
            assert str(e.value).startswith(server.address)
            assert "\n" not in str(e.value)
        assert server.asked["/secret"] == 0


def endless_continue(request: Handler, before: int) -> None:
    while not request.server.closing.wait(0.05):
        request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.wfile.flush()


STUCK: dict[str, Answer] = {
    "100 Continue without end": endless_continue,
    "a byte now and then": drip,
}


@pytest.mark.parametrize("answer", STUCK.values(), ids=STUCK)
def test_an_answer_that_never_ends_is_given_up(answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "getproxies", dict)
    monkeypatch.setattr(client, "SECONDS_PER_RATE", 1.0)
    monkeypatch.setattr(stores, "TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(stores, "MAX_ATTEMPTS", 1)
    with serving({"/x": answer, "/manifest.json": answer}) as server:
        with pytest.raises(UserError):
            download(server.address + "/x", tmp_path / "x")
        with pytest.raises(UserError):
            fetch_release(server.address, tmp_path / "here")
    assert server.asked == {"/x": 1, "/manifest.json": 1}


@pytest.mark.parametrize("name", ["manifest.json", "items.parquet"])
def test_a_pipe_in_a_folder_that_is_fetched_is_one_line(name: str, tmp_path: Path) -> None:
    release = releases.coded(tmp_path / "root").release
    (release / name).unlink()
    os.mkfifo(release / name)
    with pytest.raises(UserError, match=name):
        fetch_release(str(release), tmp_path / "here")


def test_a_host_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PER_HOST", 2)
    with serving({f"/{i}": hang for i in range(60)}) as server:
        results = images([[f"{server.address}/{i}"] for i in range(60)], FAST.model_copy(update={"timeout": 2}))
        asked = server.asked.total()
    assert {status for status, _ in endings(results)} == {"timeout"}
    assert asked <= access.GIVE_UP_AFTER + access.PER_HOST  # of 60


def test_a_host_that_asks_to_wait_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignrec.pipeline.web.retries.MAX_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(access, "MAX_HOLD_SECONDS", 0.5)
    with serving({f"/{i}": status(503, Retry_After="3600") for i in range(200)}) as server:
        results = images([[f"{server.address}/{i}"] for i in range(200)])
    assert set(endings(results)) == {("http_error", "503")}
    assert server.asked.total() < 100


def test_the_addresses_of_an_item_are_capped() -> None:
    with serving({}) as server:
        (ending,) = endings(images([[f"{server.address}/{i}" for i in range(1000)]]))
        assert server.asked.total() == fetcher.MAX_ADDRESSES
    assert ending[0] == "http_error"
