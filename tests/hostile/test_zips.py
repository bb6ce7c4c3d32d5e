"""Zip files of releases in which anything may be: one line with the file's name, and no wait."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.http.hub import Absent
from pipeline.remote.fetch import fetch
from pipeline.remote.stores import Archive

NAMES = ("manifest.json", "features/a.parquet")
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)


def packed(path: Path, compression: int) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name in NAMES:
            file.writestr(f"release/{name}", b"0123456789" * 50)
    return path.read_bytes()


def read(path: Path) -> None:
    archive = Archive(path, str(path))
    for name in NAMES:
        for start in (0, 7):
            list(archive.read(name, start))


@pytest.mark.parametrize("compression", PACKED)
def test_any_byte_changed_is_one_line_or_right(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "r.zip"
    whole, rng = packed(path, compression), random.Random(compression)
    read(path)
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8) if at % 2 else 255
        path.write_bytes(data)
        said = str(path)
        try:
            read(path)
        except Absent:
            continue
        except UserError as e:
            said = str(e)
        assert said.startswith(str(path))
        assert "\n" not in said


def test_bzip2_is_refused(tmp_path: Path) -> None:
    packed(tmp_path / "r.zip", zipfile.ZIP_BZIP2)
    with pytest.raises(UserError, match="bzip2"):
        read(tmp_path / "r.zip")


def test_a_pipe_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.zip")
    with pytest.raises(UserError, match="a pipe or device, and no zip file"):
        fetch(str(tmp_path / "r.zip"), tmp_path / "to")
