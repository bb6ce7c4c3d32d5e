"""Images that nobody means well with: each ends with a status, within bounds of time and memory."""

import gzip
import io
import random
import struct
import tarfile
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.http.web import Client, Policy
from pipeline.images import decode, fetcher, files
from pipeline.images.decode import Room, normalise
from pipeline.images.params import Images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
LIMITS = {"size": 32, "quality": 90, "max_pixels": 1_000_000}


def jpeg(size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(out, "JPEG", **options)
    return out.getvalue()


def exif() -> bytes:
    tags = Image.Exif()
    tags.update({0x0112: 6, 0x010E: "a description", 0x011A: 72.0, 0x8769: {0x9003: "2020:01:01 00:00:00"}})
    return tags.tobytes()


def mutated(data: bytes, at: int, size: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[at + rng.randrange(size)] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("dpi", [None, (72, 72)], ids=["resolution in EXIF", "resolution beside it"])
def test_a_damaged_exif_costs_no_image(dpi: tuple[int, int] | None) -> None:
    tags, rng = exif(), random.Random(0)
    sound = jpeg(exif=tags, **({"dpi": dpi} if dpi else {}))
    at = sound.index(b"Exif\0\0") + 6
    assert (normalise(sound, **LIMITS).width, normalise(sound, **LIMITS).height) == (32, 43)  # it is turned
    results = [normalise(mutated(sound, at, len(tags) - 6, rng), **LIMITS) for _ in range(300)]
    assert {(result.status, result.reason) for result in results} == {("ok", "")}


def test_a_damaged_exif_of_a_png_costs_no_image() -> None:
    out, rng = io.BytesIO(), random.Random(0)
    Image.new("RGB", (64, 48), "red").save(out, "PNG", exif=exif())
    data = out.getvalue()
    at = data.index(b"eXIf")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    for _ in range(100):
        chunk = mutated(data[at : at + 4 + size], 4, size, rng)
        checked = data[:at] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at + 8 + size :]
        assert normalise(checked, **LIMITS).status == "ok"


def scans(data: bytes, times: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    last = data.rindex(decode.START_OF_SCAN)
    return data[:last] + data[last:-2] * times + data[-2:]


def test_a_jpeg_with_many_scans_is_too_large_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "simplejpeg", None)
    bomb = scans(jpeg((1000, 1000), progressive=True, quality=30), 3000)
    result = normalise(bomb, **LIMITS)
    assert result.status == "too_large"
    assert "1000 x 1000 pixels in 30" in result.reason


def test_progressive_jpegs_as_encoders_make_them_are_decoded() -> None:
    assert normalise(jpeg((1000, 1000), progressive=True), **LIMITS).status == "ok"
    assert normalise(scans(jpeg(progressive=True), 50), **LIMITS).status == "ok"  # small: no work


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_a_large_image_is_averaged_to_what_a_small_one_would_be(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blots = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6), dtype=np.uint8)).resize((300, 420))
    image = Image.new(mode, blots.size) if mode == "I;16" else blots.convert("RGB" if mode == "P" else mode)
    image = image.quantize(256) if mode == "P" else image
    out = io.BytesIO()
    image.save(out, "PNG")
    whole = normalise(out.getvalue(), **LIMITS)
    monkeypatch.setattr(decode, "LARGE", 1000)
    monkeypatch.setattr(decode, "BAND", 5000)
    averaged = normalise(out.getvalue(), **LIMITS)
    assert (averaged.status, averaged.width, averaged.height) == ("ok", whole.width, whole.height)
    assert averaged.phash is not None
    assert whole.phash is not None
    assert mode == "1" or (averaged.phash ^ whole.phash).bit_count() <= fetcher.NEAR


def test_room_is_for_so_many_pixels_at_a_time() -> None:
    room, held, most, lock = Room(100), [0], [0], threading.Lock()

    def work(pixels: int) -> None:
        with room.taken(pixels):
            with lock:
                held[0] += min(pixels, 100)
                most[0] = max(most[0], held[0])
            time.sleep(0.01)
            with lock:
                held[0] -= min(pixels, 100)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [40, 60, 100, 10, 500, 30] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert held == [0]
    assert most[0] <= 100


def fetched(folder: Path, names: list[str]) -> list[fetcher.Result]:
    with fetcher.Fetcher(Images(), files.Folder(folder, outside=False)) as web:
        return web.fetch([[name] for name in names])


def test_images_for_which_memory_was_too_little_together_are_decoded_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(jpeg())

    def scarce(data: bytes, size: int, quality: int, most: int, room: Room | None = None) -> decode.Decoded:
        if room is not None:  # others are decoded at the same time
            raise MemoryError
        return normalise(data, size, quality, most)

    monkeypatch.setattr(fetcher, "normalise", scarce)
    assert [result.decoded.status for result in fetched(tmp_path, names)] == ["ok"] * 5


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_too_little_memory_for_one_image_is_said_and_no_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def nothing(*args: object, **more: object) -> None:
        raise error

    (tmp_path / "a.jpg").write_bytes(jpeg())
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", nothing)
    with pytest.raises(UserError, match=r"a\.jpg: not enough memory"):
        fetched(tmp_path, ["a.jpg"])


def zipped() -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.jpg", jpeg())
    return bytearray(out.getvalue())


ENTRY = b"PK\x01\x02"  # begins an entry of a zip's directory; the version that it needs is six bytes on
ARCHIVES = {
    "a directory that is damaged": (ENTRY, b"PK\x01\xff", "Bad magic number"),
    "a version that is not known": (ENTRY, ENTRY + b"\0\0\x61\0", "zip file version 9.7"),
}


@pytest.mark.parametrize(("before", "after", "error"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_damaged_archive_of_images_is_refused_in_one_line(
    tmp_path: Path, before: bytes, after: bytes, error: str
) -> None:
    data = zipped()
    at = data.rindex(before)
    data[at : at + len(after)] = after
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=f"a.zip: not a readable zip.*{error}") as caught:
        files.opened(Images(), tmp_path / "a.zip")
    assert str(caught.value).isprintable()


def header(name: str, size: int, kind: bytes) -> bytes:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    return made.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME], ids=["pax", "long name"])
def test_a_header_of_a_tar_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    size = 64 << 20
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as f:
        f.write(header("long", size, kind) + bytes(size) + header("a.png", 0, tarfile.REGTYPE) + bytes(1024))
    with pytest.raises(UserError, match=r"a\.tar\.gz.*67,108,864"):
        files.opened(Images(), tmp_path / "a.tar.gz")


BOMBS = {
    "deflate": (zipfile.ZIP_DEFLATED, ("too_large", "more than 1000000 bytes")),
    "bzip2": (
        zipfile.ZIP_BZIP2,
        ("unreachable", "not readable in the archive: bzip2 makes gigabytes of a kilobyte; pack it otherwise"),
    ),
    "LZMA": (zipfile.ZIP_LZMA, ("too_large", "more than 1000000 bytes")),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_in_a_zip_takes_no_memory(tmp_path: Path, case: str) -> None:
    compression, expected = BOMBS[case]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        archive.writestr("a.png", bytes(256 << 20))
        archive.writestr("b.png", b"abc", zipfile.ZIP_LZMA)
    archive = files.opened(Images(), tmp_path / "a.zip")
    tracemalloc.start()
    read = archive.read("a.png", 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (read.status, read.reason) == expected
    assert peak < 100 << 20
    assert archive.read("b.png", 1_000_000).data == b"abc"


def test_a_member_of_an_archive_without_a_name_is_none(tmp_path: Path) -> None:
    data = zipped().replace(b"a.jpg", b"\0.jpg")  # the name ends at NUL
    (tmp_path / "a.zip").write_bytes(data)
    archive = files.opened(Images(), tmp_path / "a.zip")
    assert archive.read("a.jpg", 1000) == files.NO_FILE
    archive.close()


ADDRESSES = {
    "an open bracket": "http://[",
    "a port beyond 65535": "http://e:99999/x.jpg",
    "a port of zero": "http://e:0/x.jpg",
    "a negative port": "http://e:-1/x.jpg",
    "a name that IDNA refuses": "http://xn--zzzzzzzzz99999/x.jpg",
    "a full stop that is a digit": "http://\u2488com/x.jpg",
    "a name of nothing": "http://\u00ad/x.jpg",
    "a surrogate": "http://\ud800/x.jpg",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_what_is_no_address_is_blocked_in_redirects_too(address: str) -> None:
    import asyncio

    import httpx

    from pipeline.http import web

    params = Images()
    policy = Policy(**{name: getattr(params, name) for name in Policy._fields})

    async def get() -> object:
        client = Client(policy)
        try:
            return await client.get(address)
        finally:
            await client.close()

    assert asyncio.run(get()) == (None, "blocked", "not a valid address")
    with pytest.raises(web.Failure) as caught:
        web.parse_address(address, httpx.URL("http://e/from"))
    assert caught.value.status == "blocked"
