"""Hostile images and archives end with a status, within bounds of time and memory."""

import tracemalloc
import zipfile
from pathlib import Path

import pytest
from pictures import noise
from PIL import Image

from alignrec.pipeline.images import access, decode
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.remote.fetch import fetch
from alignrec.pipeline.vectors.arrays import open_archive

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
LIMITS = {"size": 32, "quality": 90, "max_pixels": 1_000_000}


def exif() -> bytes:
    tags = Image.Exif()
    tags.update({0x0112: 6, 0x010E: "a description", 0x011A: 72.0, 0x8769: {0x9003: "2020:01:01 00:00:00"}})
    return tags.tobytes()


def scans(data: bytes, times: int) -> bytes:
    last = data.rindex(decode.START_OF_SCAN)
    return data[:last] + data[last:-2] * times + data[-2:]


def test_a_jpeg_with_many_scans_is_too_large_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "simplejpeg", None)
    bomb = scans(noise((100, 100), progressive=True, quality=30), 3000)
    result = normalise_image(bomb, **LIMITS | {"max_pixels": 10_000})
    assert result.status == "too_large"
    assert "100 x 100 pixels in 30" in result.reason


def bomb(path: Path, name: str, method: int) -> Path:
    """Write a zip file whose member `name` is 128 MiB of zeros."""
    with zipfile.ZipFile(path, "w", method) as file, file.open(name, "w", force_zip64=True) as member:
        for _ in range(32):
            member.write(bytes(1 << 22))
    return path


@pytest.mark.parametrize(
    ("compression", "status"),
    [(zipfile.ZIP_DEFLATED, "too_large"), (zipfile.ZIP_BZIP2, "unreachable"), (zipfile.ZIP_LZMA, "too_large")],
)
def test_a_bomb_in_a_zip_takes_no_memory(tmp_path: Path, compression: int, status: str) -> None:
    path = bomb(tmp_path / "a.zip", "a.png", compression)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("b.png", b"abc", zipfile.ZIP_LZMA)
    archive = access.open_files(Images(), path)
    tracemalloc.start()
    read = archive.read("a.png", 1_000_000)
    assert (read.status, tracemalloc.get_traced_memory()[1] < 100 << 20) == (status, True)
    tracemalloc.stop()
    assert archive.read("b.png", 1_000_000).data == b"abc"


METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2}


@pytest.mark.parametrize("method", METHODS)
def test_members_are_unpacked_within_their_bound(tmp_path: Path, method: str) -> None:
    release = bomb(tmp_path / "release.zip", "manifest.json", METHODS[method])
    vectors = bomb(tmp_path / "vectors.zip", "B01.npy", METHODS[method])
    tracemalloc.start()
    with pytest.raises(UserError, match="bzip2" if method == "bzip2" else "more than"):
        fetch(str(release), tmp_path / "to")
    with pytest.raises(UserError, match="more than"):
        open_archive(vectors)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
