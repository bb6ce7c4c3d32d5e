"""The sticker shop is as shipped, a part of it is its densest, and its files fit the wheel."""

import ast
import gzip
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from alignrec.pipeline.io import digest, sha256
from alignrec.pipeline.sources.sample import ARCHIVE, SampleSource

PART = SampleSource(kind="sample", users=150, items=100)
REVIEWS, METADATA = "reviews_Stickers.json.gz", "meta_Stickers.json.gz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(SampleSource(kind="sample"), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(PART, tmp_path_factory.mktemp("part"))


def make(source: SampleSource, folder: Path) -> Path:
    assert source.make(folder, iter) == {"reviews": REVIEWS, "metadata": METADATA}
    return folder


def reviews(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.open(folder / REVIEWS)]


def metadata(folder: Path) -> list[dict[str, object]]:
    return [ast.literal_eval(line.decode()) for line in gzip.open(folder / METADATA)]


def test_files_are_as_shipped_and_two_runs_write_the_same(whole: Path, part: Path, tmp_path: Path) -> None:
    shipped = zipfile.ZipFile(ARCHIVE)
    for name in (REVIEWS, METADATA):
        assert gzip.decompress((whole / name).read_bytes()) == gzip.decompress(shipped.read(name))
    assert sha256(whole / METADATA) == "9965d77ef13cca1fd03060aa0ab9df708bf357b65fceea878631534f07dc5efc"

    files = [sorted(p for p in folder.rglob("*") if p.is_file()) for folder in (part, make(PART, tmp_path))]
    assert digest(files[0]) == digest(files[1])
    assert ARCHIVE.stat().st_size < 6e6, "the wheel stays below 12 MB"


def test_pictures_have_the_pixels_of_those_shipped_and_broken_ones_stay_broken(whole: Path) -> None:
    shipped = zipfile.ZipFile(ARCHIVE)
    named = [str(record["imUrl"]) for record in metadata(whole) if "imUrl" in record]
    assert sorted(named) == sorted(f"pictures/{p.name}" for p in (whole / "pictures").iterdir())

    broken = 0
    for name in named:
        try:
            with Image.open(whole / name) as image:
                pixels = image.tobytes()
        except OSError:
            broken += 1
            assert (whole / name).read_bytes() == shipped.read(name)
            continue
        with shipped.open(f"{name.removesuffix('.png')}.webp") as file, Image.open(file) as image:
            assert image.tobytes() == pixels, name
    assert (len(named), broken) == (1552, 16)


def test_a_part_is_of_those_who_bought_most_of_what_was_bought_most(whole: Path, part: Path) -> None:
    assert len(metadata(part)) == 100
    assert len({row["reviewerID"] for row in reviews(part)}) == 150
    assert len({*map(str, reviews(part))}) > 5 * 150
    for rows, of_all in ((metadata(part), metadata(whole)), (reviews(part), reviews(whole))):
        assert rows == [row for row in of_all if row in rows], "in the order of the files"


def test_texts_lack_and_reviews_come_twice_as_in_a_crawl(whole: Path) -> None:
    assert sum("title" not in record for record in metadata(whole)) == 32
    rows = list(map(str, reviews(whole)))
    assert len(rows) - len({*rows}) == 339
    assert {row["asin"] for row in reviews(whole)} <= {record["asin"] for record in metadata(whole)}
