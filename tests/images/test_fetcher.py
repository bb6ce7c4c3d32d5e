"""Images from a misbehaving server: one status each, nothing lost, no forbidden address reached."""

import gzip
import hashlib
import io
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpcore
import numpy as np
import pyarrow as pa
import pytest
from pictures import saved
from PIL import Image
from shop import toy
from webserver import Server, body, cut, first, serving, status

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io as files
from alignrec.pipeline.images import access, decode, fetcher
from alignrec.pipeline.images.access import ImageFiles, open_files
from alignrec.pipeline.images.decode import Decoded, PixelSemaphore, normalise_image
from alignrec.pipeline.images.fetcher import Fetcher
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import running
from alignrec.stages import images as stage

FAST = Images(timeout=60, private_hosts=["127.0.0.1"], max_bytes=200_000)
NONE = ImageFiles()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RETRIES": 2, "RATE": 500.0, "GIVE_UP_AFTER": 3}.items():
        monkeypatch.setattr(access, name, value)


def encoded(
    mode: str = "RGB", size: tuple[int, int] = (40, 30), kind: str = "JPEG", colour: object = None, **save: object
) -> bytes:
    if colour is not None:
        return saved(Image.new(mode, size, colour), kind, **save)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return saved(Image.fromarray(pixels).convert(mode), kind, **save)


JPEG = encoded()
BLUE = Image.new("RGB", (20, 20), "blue")
ANIMATION = encoded(colour="red", size=(20, 20), kind="GIF", save_all=True, append_images=[BLUE])


def get(server: Server, path: str, params: Images = FAST) -> Decoded:
    return fetch([[server.address + path]], params)[0]


def fetch(urls: list[list[str]], params: Images = FAST, start: Path | None = None) -> list[Decoded]:
    with closing(open_files(params, start)) as local, Fetcher(params, local) as web:
        return web.fetch_items(urls)


def ending(actual: Decoded) -> tuple[str, str]:
    return actual.status, actual.reason


def opened(actual: Decoded) -> Image.Image:
    assert actual.image is not None, actual.reason
    made = Image.open(io.BytesIO(actual.image))
    assert (made.format, made.mode, made.size) == ("JPEG", "RGB", (actual.width, actual.height))
    return made


# --- decoding


def shrunk(data: bytes, size: int = 16) -> Decoded:
    return normalise_image(data, size, 90, 10**6)


def test_the_shorter_side_is_shrunk_and_never_enlarged() -> None:
    assert opened(shrunk(encoded(size=(80, 40)))).size == (32, 16)
    assert opened(shrunk(encoded(size=(20, 10)))).size == (20, 10)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("width", "height"), [(507, 514), (513, 517), (1031, 1033), (257, 1003), (258, 256)])
def test_a_jpeg_that_is_decoded_smaller_is_not_shifted(mode: str, width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).resize((width, height)).convert(mode)
    actual = normalise_image(saved(scene, quality=95), 256, 90, max_pixels=2_000_000)
    got = opened(actual).convert("L")  # colours are kept at half the size
    want = scene.convert("RGB").convert("L").resize(got.size, Image.Resampling.LANCZOS)
    assert min(got.size) == 256
    assert np.sqrt(np.square(np.asarray(got, np.float32) - np.asarray(want, np.float32)).mean()) < 2


def test_a_header_that_promises_two_sizes_is_not_decoded_at_the_larger() -> None:
    start = JPEG.index(b"\xff\xc0")
    frame = bytearray(JPEG[start : start + 2 + int.from_bytes(JPEG[start + 2 : start + 4])])
    frame[5:9] = struct.pack(">HH", 60000, 60000)
    for data in (JPEG[:start] + frame + JPEG[start:], JPEG[:start] + JPEG[start : start + len(frame)] + frame + JPEG[
        start + len(frame) :]):  # fmt: skip
        assert shrunk(data).status in ("not_an_image", "too_large", "truncated")


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    for mode in ("RGB", "L", "CMYK"):
        assert opened(shrunk(encoded(mode, (80, 40), exif=exif))).size == (16, 32)
    assert opened(shrunk(encoded("RGBA", (80, 40), "PNG", exif=exif))).size == (16, 32)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded("RGBA", kind="PNG", colour=(255, 0, 0, 0)), (255, 255, 255)),
        (encoded("RGBA", kind="PNG", colour=(255, 0, 0, 255)), (254, 0, 0)),
        (encoded("LA", kind="PNG", colour=(0, 128)), (127, 127, 127)),
        (encoded("P", kind="GIF", colour=3, transparency=3), (255, 255, 255)),
        (encoded("CMYK", colour=(0, 255, 255, 0)), (254, 0, 0)),
        (encoded("I;16", kind="PNG", colour=0x8000), (128, 128, 128)),
        (encoded("1", kind="PNG", colour=1), (255, 255, 255)),
        (encoded(kind="WEBP", colour=(0, 0, 255), lossless=True), (0, 0, 254)),
        (encoded(kind="BMP", colour=(0, 255, 0)), (0, 255, 0)),
        (ANIMATION, (254, 0, 0)),  # its first frame
    ],
)  # fmt: skip
def test_every_kind_of_image_becomes_rgb_on_white(data: bytes, colour: tuple[int, int, int]) -> None:
    middle = opened(shrunk(data)).getpixel((8, 8))
    assert np.abs(np.subtract(middle, colour)).max() <= 2


def bomb(side: int = 30_000) -> bytes:
    """Return a PNG of side x side pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html>no</html>"


UNUSABLE = {
    "truncated": (JPEG[: len(JPEG) // 2], encoded(kind="PNG")[:600], encoded(kind="GIF")[:1100]),
    "too_large": (bomb(), bomb(2000)),
    "placeholder": (encoded("RGB", (1, 1), "GIF"),),
    "too_small": (encoded("RGB", (500, 3), "PNG"),),
    "not_an_image": (SVG, HTML, gzip.compress(HTML, mtime=0), b"", b"%PDF-1.4", b"\xff\xd8\xff\xe0" + bytes(100)),
}


@pytest.mark.parametrize(("data", "status"), [(data, status) for status in UNUSABLE for data in UNUSABLE[status]])
def test_what_is_no_usable_image_says_why(data: bytes, status: str) -> None:
    actual = normalise_image(data, 16, 90, 3_000_000)
    assert (actual.status, actual.image) == (status, None)
    assert actual.reason
    assert len(actual.sha256) == 64


# --- fetching


ANSWERS = {
    "/none": (status(404), ("http_error", "404")),
    "/ok": (body(JPEG), ("ok", "")),
    "/403": (status(403), ("http_error", "403")),
    "/late": (first(2, status(500), body(JPEG)), ("ok", "")),
    "/never": (status(503), ("http_error", "503")),
    "/busy": (first(1, status(429, Retry_After="0"), body(JPEG)), ("ok", "")),
    "/busier": (first(1, status(429), body(JPEG)), ("ok", "")),
    "/dated": (first(1, status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), body(JPEG)), ("ok", "")),
    "/full": (status(429, Retry_After="0"), ("http_error", "429")),
    "/cut": (cut(JPEG, 100), ("truncated", "connection cut after 100 bytes")),
    "/once": (first(1, cut(JPEG, 100), body(JPEG)), ("ok", "")),
    "/closed": (cut(JPEG, 0), ("truncated", "connection cut after 0 bytes")),
    "/lengths": (
        body(JPEG, Content_Length="9", Content_length="10"),
        ("unreachable", "connection cut (RemoteProtocolError)"),
    ),
    "/long": (cut(JPEG, len(JPEG), of=len(JPEG) + 50), ("truncated", f"connection cut after {len(JPEG):,} bytes")),
    "/short": (  # closed, as the next answer would begin with what is left
        body(JPEG, Content_Length=str(len(JPEG) - 50), Connection="close"),
        ("truncated", "OSError: image file is truncated"),
    ),
    "/gzip": (
        body(gzip.compress(HTML, mtime=0), Content_Type="image/jpeg"),
        ("not_an_image", "starts with b'\\x1f\\x8b\\x08\\x00"),
    ),
    "/coded": (
        body(gzip.compress(JPEG, mtime=0), Content_Encoding="gzip"),
        ("not_an_image", "starts with b'\\x1f\\x8b"),
    ),
    "/huge": (body(bytes(200_001)), ("too_large", "more than 200000 bytes")),
    "/loop": (status(302, Location="/loop"), ("http_error", "more than 10 redirects")),
    "/there": (status(301, Location="ok"), ("ok", "")),
    "/ftp": (status(302, Location="ftp://127.0.0.1/x"), ("blocked", "the server redirects to an invalid address")),
    "/file": (status(302, Location="file:///etc/passwd"), ("blocked", "the server redirects to an invalid address")),
    "/bad": (status(302, Location="http://[x"), ("blocked", "the server redirects to an invalid address")),
    "/../up": (body(JPEG), ("http_error", "404")),  # the client takes the dots away
}


def test_answers_and_their_statuses() -> None:
    with serving({path: answer for path, (answer, _) in ANSWERS.items()}) as server:
        results = fetch([[server.address + path] for path in ANSWERS])
    for (path, (_, (end, reason))), result in zip(ANSWERS.items(), results, strict=True):
        assert result.status == end, path
        assert result.reason.startswith(reason) if reason else not result.reason, path
    assert (server.asked["/late"], server.asked["/403"], server.asked["/never"]) == (3, 1, 3)


def test_retry_after_is_obeyed_by_everyone_who_asks_that_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PER_HOST", 1)
    with serving({"/busy": first(1, status(429, Retry_After="1"), body(JPEG)), "/ok": body(JPEG)}) as server:
        started = time.monotonic()
        urls = [[server.address + "/busy"], *[[server.address + "/ok"]] * 3]
        actual = fetch(urls, FAST)
    assert [r.status for r in actual] == ["ok"] * 4
    assert time.monotonic() - started >= 1


def test_a_host_gets_few_requests_at_a_time_and_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PER_HOST", 2)
    monkeypatch.setattr(access, "RATE", 100.0)
    with serving({f"/{i}": body(JPEG) for i in range(30)}) as server:
        urls = [[f"{server.address}/{i}"] for i in range(30)]
        started = time.monotonic()
        actual = fetch(urls)
    assert time.monotonic() - started >= 0.29
    assert {r.status for r in actual} == {"ok"}
    assert 1 <= server.busiest <= 2


def test_candidates_are_tried_in_order_and_the_first_failure_counts() -> None:
    with serving({"/ok": body(JPEG), "/403": status(403)}) as server:
        a = server.address
        good, bad, none = fetch([[a + "/403", a + "/ok", a + "/x"], [a + "/403", a + "/x"], []])
    assert (good.status, good.url) == ("ok", a + "/ok")
    assert (*ending(bad), bad.url) == ("http_error", "403", a + "/403")
    assert (*ending(none), none.url) == ("missing", "no address in the metadata", "")


def test_a_photo_is_fetched_without_an_expired_step_of_rendering() -> None:
    path = "/images/W/WEBP_402378-T1/images/I/41a._SL9_.jpg"
    with serving({"/images/I/41a._SL9_.jpg": body(JPEG), path: status(404)}) as server:
        lost = server.address + path.replace("41a", "51b")
        found, absent = fetch([[server.address + path], [lost]])
    assert (found.status, found.url) == ("ok", server.address + path)
    assert (*ending(absent), absent.url) == ("http_error", "404", lost)


def test_amazons_no_image_files_are_not_even_requested() -> None:
    url = "https://images-na.ssl-images-amazon.com/images/G/01/x-site/icons/no-img-sm._CB1275522461_.gif"
    assert fetch([[url]])[0].status == "placeholder"


# --- where it must not go


BLOCKED = (
    *("http://127.0.0.1/x", "http://localhost/x", "http://0.0.0.0/x", "http://[::1]/x", "http://[::ffff:127.0.0.1]/"),
    *("http://2130706433/x", "http://0x7f.1/x", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/x"),
    *("http://[fe80::1]/", "http://[64:ff9b::a00:1]/", "ftp://e/x", "gopher://e/", "javascript:alert(1)", "/x.jpg"),
    *("http:///x", "http://[", "", "data:image/png;base64,AA=="),
)


def test_private_addresses_and_other_schemes_are_blocked() -> None:
    results = fetch([[url] for url in BLOCKED], Images(timeout=1))
    assert [r.url for r in results if r.status != "blocked"] == []


def test_a_host_that_refuses_is_given_up_with_one_reason_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ask = list[object](), httpcore.SyncBackend.connect_tcp

    def counted(backend: httpcore.SyncBackend, *given: Any, **more: Any) -> httpcore.NetworkStream:
        asked.append(given)
        return ask(backend, *given, **more)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", counted)
    with socket.socket() as closed:  # as it does not listen
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        actual = fetch([[f"{address}/{i}"] for i in range(500)])
    assert {ending(r) for r in actual} == {("unreachable", "no connection")}
    tried = access.GIVE_UP_AFTER + access.PER_HOST  # addresses of 500
    assert access.GIVE_UP_AFTER <= len(asked) <= tried * (access.RETRIES + 1)


def test_a_name_that_does_not_resolve_is_asked_for_once() -> None:
    actual = fetch([[f"http://nowhere.invalid/{i}"] for i in range(500)])
    assert {ending(r) for r in actual} == {("unreachable", "name not resolved: nowhere.invalid")}


# --- shards


def items(urls: list[list[str]]) -> pa.Table:
    return toy.item_table([""] * len(urls), image_urls=urls)


def test_a_shard_resumes_block_by_block(tmp_path: Path) -> None:
    answers = {f"/{i}": body(encoded(colour=(i, 0, 0))) for i in range(10)}
    with serving(answers) as server, Fetcher(FAST, NONE) as web:
        rows = items([[f"{server.address}/{i}"] for i in range(10)])
        ended: list[int] = []
        in_fours = partial(fetcher.fetch_blocks, web, items_per_block=4)
        whole = pa.concat_tables(in_fours(rows, tmp_path / "whole", ended.append))
        assert sum(ended) == 10
        list(in_fours(rows.slice(0, 4), tmp_path / "cut", lambda n: None))
        asked = server.asked.total()
        resumed = pa.concat_tables(in_fours(rows, tmp_path / "cut", ended.append))
        assert sum(ended) == 20
        assert server.asked.total() == asked + 6
    assert resumed.equals(whole)
    schemas.check(whole, schemas.IMAGES)
    assert whole["item_id"].to_pylist() == list(range(10))


# --- placeholders, duplicates


def test_a_listed_image_is_a_placeholder() -> None:
    params = FAST.model_copy(update={"placeholders": [hashlib.sha256(JPEG).hexdigest().upper()]})
    with serving({"/none": body(JPEG), "/other": body(encoded(colour="red"))}) as server:
        assert [get(server, path, params).status for path in ("/none", "/other")] == ["placeholder", "ok"]


def test_duplicate_images_are_counted_and_those_of_many_items_named() -> None:
    made = normalise_image(JPEG, 16, 90, 10**6)
    lone = made._replace(sha256="d" * 64)
    cut = Decoded("truncated", "cut", None, 0, 0, "e" * 64)
    none = Decoded("missing", "none", None, 0, 0, "")
    rows = [p._replace(url=f"http://e/{i}") for i, p in enumerate([made, made, lone, cut, cut, none, none, made])]
    actual = fetcher.count_duplicates(
        [fetcher.image_table(items([[]] * len(rows)), rows).select(["url", "sha256"])],
        shared_above=2,
    )
    shared = [{"sha256": made.sha256, "items": 3, "url": "http://e/0"}]
    assert actual == {"duplicates": 3, "shared": shared}


# --- the stage


def shop(root: Path, server: Server, **section: object) -> Params:
    """Write the inputs of the stage, with an item per answer; return its parameters."""
    table = items([[server.address + path] for path in server.answers])
    files.write_table(table, root / "items/shop/items.parquet", schemas.ITEMS)
    files.write_json(root / "download/shop/sources.json", [])
    toy.ended(Layout(root, "shop"))
    return toy.params(images={"private_hosts": ["127.0.0.1"], **section})


def test_the_stage_retries_only_failures_and_reports_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "SHARED_ABOVE", 2)
    answers = {"/a": body(JPEG), "/b": first(1, status(404), body(JPEG)), "/c": status(404), "/d": body(JPEG)}
    with serving(answers) as server:
        params = shop(tmp_path, server, shard_rows=2)

        def run(**how: bool) -> tuple[list[str], dict[str, object]]:
            with running("images", "shop", params, tmp_path) as going:
                stage.main(going, **how)
            shards = [files.read_table(p, schemas.IMAGES) for p in files.shards(tmp_path / "images/shop", "images")]
            return pa.concat_tables(shards)["status"].to_pylist(), files.read_json(tmp_path / "images/shop/run.json")

        assert run()[0] == ["ok", "http_error", "http_error", "ok"]
        assert run()[0] == ["ok", "http_error", "http_error", "ok"]
        assert server.asked == {"/a": 1, "/b": 1, "/c": 1, "/d": 1}
        statuses, record = run(retry_failed=True)
    assert statuses == ["ok", "ok", "http_error", "ok"]
    assert server.asked == {"/a": 1, "/b": 2, "/c": 2, "/d": 1}
    assert record["drops"] == {"http_error": 1}
    shared = [{"sha256": hashlib.sha256(JPEG).hexdigest(), "items": 3, "url": server.address + "/a"}]
    assert record["notes"] == {"duplicates": 2, "shared": shared}


def test_a_damaged_shard_is_fetched_again_and_no_other(tmp_path: Path) -> None:
    with serving({f"/{i}": body(JPEG) for i in range(7)}) as server:
        params = shop(tmp_path, server, shard_rows=2)
        toy.run("images", params, tmp_path)
        shard = tmp_path / ".work/images/shop/images-00002.parquet"
        content = shard.read_bytes()
        shard.write_bytes(content[:-1])
        whole = toy.run("images", params, tmp_path)
        assert shard.read_bytes() == content
        assert (whole.rows_in, whole.rows_out) == (7, 7)
        assert server.asked == {f"/{i}": 1 + (i in (4, 5)) for i in range(7)}


def test_images_of_the_web_are_kept_when_items_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {f"/{i}": body(encoded(colour=(20 * i, 0, 0))) for i in range(10)}
    monkeypatch.setattr(fetcher.fetch_blocks, "__defaults__", (None, 3))  # items per block
    with serving(answers) as server:

        def run(numbers: list[int]) -> dict[str, str]:
            urls = [[f"{server.address}/{number}"] for number in numbers]
            table = toy.item_table([""] * len(urls), image_urls=urls, asin=[f"A{number}" for number in numbers])
            files.write_table(table, tmp_path / "items/shop/items.parquet", schemas.ITEMS)
            toy.ended(Layout(tmp_path, "shop"))
            with running("images", "shop", toy.params(images={"private_hosts": ["127.0.0.1"]}), tmp_path) as going:
                stage.main(going)
            made = files.read_table(tmp_path / "images/shop/images-00000.parquet", schemas.IMAGES).to_pylist()
            assert [row["asin"] for row in made] == table["asin"].to_pylist()
            return {row["asin"]: row["sha256"] for row in made}

        shop(tmp_path, server)
        before = run([1, 2, 3, 4, 5, 6, 7])
        after = run([0, 1, 2, 4, 8, 7, 5, 6, 9])
        assert server.asked == {f"/{number}": 1 for number in range(10)}
    assert after["A5"] == before["A5"]
    assert len(set(after.values())) == 9, "each item has its own image"


# --- memory


def test_room_is_for_so_many_pixels_at_a_time() -> None:
    semaphore, held, most = PixelSemaphore(100), [0], [0]

    def work(pixels: int) -> None:
        with semaphore.acquire(pixels):
            held.append(min(pixels, 100))
            most.append(sum(held))
            time.sleep(0.01)
            held.remove(min(pixels, 100))

    with ThreadPoolExecutor(18) as pool:
        list(pool.map(work, [40, 60, 100, 10, 500, 30] * 3))
    assert (sum(held), max(most)) == (0, 100)


def test_too_little_memory_for_one_image_is_said_and_no_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", Mock(side_effect=MemoryError))
    folder, said = (
        access.ImageFolder(tmp_path, outside=False),
        pytest.raises(UserError, match=r"a\.jpg: not enough memory"),
    )
    with Fetcher(Images(), folder) as web, said:
        web.fetch_items([["a.jpg"]])
