"""Zip files whose members unpack to far more than they take: refused, in little memory, by every reader."""

import tracemalloc
import zipfile
from pathlib import Path

import pytest

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.remote.fetch import fetch
from alignrec.pipeline.vectors.arrays import open_archive

SIZE = 1 << 27
METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2}


def bomb(path: Path, name: str, method: int) -> Path:
    """Write a zip file whose member `name` is SIZE zeros."""
    with zipfile.ZipFile(path, "w", method) as file, file.open(name, "w", force_zip64=True) as member:
        for _ in range(SIZE >> 22):
            member.write(bytes(1 << 22))
    return path


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
