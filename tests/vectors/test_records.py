"""Image features by ASIN: only the requested rows, in order; errors of truncated files name the place."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.vectors.arrays import BLOCK, RECORD, WIDTH
from alignrec.pipeline.vectors.base import match_file


def record(asin: str, value: float) -> bytes:
    return asin.encode() + np.full(WIDTH, value, "<f4").tobytes()


def write(path: Path, *records: bytes) -> Path:
    data = b"".join(records)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["x.b", "x.b.gz"])
def test_wanted_items_in_the_wanted_order_and_the_others_counted(tmp_path: Path, name: str) -> None:
    many = [record(f"B{i:09d}", i) for i in range(BLOCK + 2)]
    path = write(tmp_path / name, *many, record("B000000003", -1))
    asins = [f"B{BLOCK + 1:09d}", "NOT_THERE_", "B000000003"]
    matched = match_file(path, asins)
    assert matched.rows(0, 3)[:, [0, -1]].tolist() == [[BLOCK + 1] * 2, [0, 0], [3, 3]]
    assert (matched.place >= 0).tolist() == [True, False, True]
    assert (matched.unknown, matched.missing, matched.vectors.of_images) == (BLOCK + 1, 1, True)


def test_a_cut_or_broken_file_is_one_line_with_the_place(tmp_path: Path) -> None:
    good = record("B000000000", 1)
    with pytest.raises(UserError, match=rf"x\.b: cut off at byte {RECORD + 99:,}"):
        match_file(write(tmp_path / "x.b", good, good[:99]), ["B000000000"])
    matched = match_file(write(tmp_path / "x.b", good, record("B000000001", np.nan)), ["B000000000", "B000000001"])
    with pytest.raises(UserError, match="row 1: not finite"):
        matched.rows(0, 2)
