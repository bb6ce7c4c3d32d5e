"""Hostile images and archives end with a status, within bounds of time and memory."""

import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import noise

from alignrec.pipeline.images import access, decode
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.vectors.members import open_archive

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
LIMITS = {"size": 32, "quality": 90, "max_pixels": 1_000_000}


def scans(data: bytes, times: int) -> bytes:
    last = data.rindex(decode.START_OF_SCAN)
    return data[:last] + data[last:-2] * times + data[-2:]


def test_a_jpeg_with_many_scans_is_too_large_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "simplejpeg", None)
    bomb = scans(noise((100, 100), progressive=True, quality=30), 3000)
    result = normalise_image(bomb, **LIMITS | {"max_pixels": 10_000})
    assert result.status == "too_large"
    assert "100 x 100 pixels in 30" in result.reason


def test_a_small_jpeg_with_many_scans_is_decoded() -> None:
    small = scans(noise((100, 100), progressive=True, quality=30), 20)
    assert small.count(decode.START_OF_SCAN) > decode.MAX_SCANS
    assert normalise_image(small, **LIMITS).status == "ok"


def bomb(folder: Path, method: int) -> Iterator[Path]:
    """Yield archives of one member of 128 MiB of zeros: of images, a release, and one of vectors."""
    path = folder / "release.zip"
    with zipfile.ZipFile(path, "w", method) as file, file.open("manifest.json", "w", force_zip64=True) as member:
        for _ in range(32):
            member.write(bytes(1 << 22))
    for name in ("000000001.png", "manifest.json", "000000001.npy"):  # as long, so that nothing else changes
        other = folder / f"{name}.zip"
        other.write_bytes(path.read_bytes().replace(b"manifest.json", name.encode()))
        yield other


@pytest.mark.parametrize(
    ("method", "status", "said"),
    [
        (zipfile.ZIP_DEFLATED, "too_large", "more than"),
        (zipfile.ZIP_BZIP2, "unreachable", "bzip2"),
        (zipfile.ZIP_LZMA, "too_large", "more than"),
    ],
)
def test_members_are_unpacked_within_their_bound(tmp_path: Path, method: int, status: str, said: str) -> None:
    images, release, vectors = bomb(tmp_path, method)
    with zipfile.ZipFile(images, "a") as file:
        file.writestr("b.png", b"abc", zipfile.ZIP_LZMA)
    archive = access.open_files(Images(), images)
    tracemalloc.start()
    assert archive.read("000000001.png", 1_000_000).status == status
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    with pytest.raises(UserError, match=said):
        fetch(str(release), tmp_path / "to")
    with pytest.raises(UserError, match="more than"):
        open_archive(vectors)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert archive.read("b.png", 1_000_000).data == b"abc"
