"""The sticker shop is reproducible, with planted tastes and a look measured from pixels."""

import ast
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alignrec.pipeline.io import digest
from alignrec.pipeline.sources.sample import SampleSource
from alignrec.pipeline.sources.shoppers import draw_purchases
from alignrec.pipeline.sources.stickers import COLOURS, SHAPES, choose_stickers, measure_look

SMALL = SampleSource(kind="sample", users=150, items=100)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    assert SMALL.make(folder, iter) == {"reviews": "reviews_Stickers.json.gz", "metadata": "meta_Stickers.json.gz"}
    return folder


def contents(folder: Path) -> str:
    return digest(sorted(p for p in folder.rglob("*") if p.is_file()))


def metadata(folder: Path) -> list[dict[str, object]]:
    return [ast.literal_eval(line.decode()) for line in gzip.open(folder / "meta_Stickers.json.gz")]


def test_two_runs_write_the_same_bytes_and_another_seed_does_not(shop: Path, tmp_path: Path) -> None:
    SMALL.make(tmp_path / "again", iter)
    assert contents(tmp_path / "again") == contents(shop)
    SMALL.model_copy(update={"seed": 1}).make(tmp_path / "other", iter)
    assert contents(tmp_path / "other") != contents(shop)


def test_shares_of_what_is_wrong(shop: Path) -> None:
    lines = metadata(shop)
    files = {p.name for p in (shop / "pictures").iterdir()}
    named = [str(r["imUrl"]).removeprefix("pictures/") for r in lines if "imUrl" in r]
    assert len(named) == 97
    assert set(named) == files
    assert sum("title" not in r for r in lines) == 2
    broken = [n for n in files if not (shop / "pictures" / n).read_bytes().endswith(b"IEND\xaeB`\x82")]
    assert len(broken) == 1


def test_reviews_are_amazons_and_some_come_twice(shop: Path) -> None:
    lines = gzip.decompress((shop / "reviews_Stickers.json.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    assert {"reviewerID", "asin", "overall", "unixReviewTime"} <= set(rows[0])
    assert {r["asin"] for r in rows} <= {r["asin"] for r in metadata(shop)}
    twice = len(lines) - len(set(lines))
    assert twice == round(0.01 * len(set(lines)))


def test_stickers_are_unicodes_without_skin_tones() -> None:
    actual = choose_stickers(1600)
    assert len({s.asin for s in actual}) == 1600
    assert {len(s.asin) for s in actual} == {10}
    assert not [s for s in actual if set(s.code.split("-")) & {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}]
    first = actual[0]
    assert (first.name, first.category, first.subcategory) == ("Grinning face", "Smileys & Emotion", "face smiling")


@pytest.mark.parametrize(
    ("box", "fill", "drawn", "colour", "shape"),
    [
        ((40, 40, 120, 120), "#d22f27", "rectangle", "red", "boxy"),
        ((40, 40, 120, 120), "#92d3f5", "ellipse", "blue", "round"),
        ((60, 10, 90, 150), "#5c9e31", "rectangle", "green", "tall"),
        ((10, 60, 150, 90), "#9b9b9a", "rectangle", "grey", "wide"),
    ],
)
def test_look(box: tuple[int, ...], fill: str, drawn: str, colour: str, shape: str) -> None:
    image = Image.new("RGB", (160, 160), "white")
    getattr(ImageDraw.Draw(image), drawn)(box, fill=fill, outline="black", width=4)
    actual = measure_look(image)
    assert (COLOURS[actual[0]], SHAPES[actual[1]]) == (colour, shape)


def shopping() -> tuple[np.ndarray, ...]:
    """Return user, item and time of 2000 shoppers, and theme and look of 800 stickers, which are independent."""
    rng = np.random.default_rng(5)
    subcategory, colour, shape = rng.integers(0, 40, 800), rng.integers(0, 8, 800), rng.integers(0, 4, 800)
    bought = draw_purchases(subcategory // 5, subcategory, colour, shape, users=2000, seed=0)
    return (*(bought[c].to_numpy() for c in ("user", "item", "timestamp")), subcategory, colour * 4 + shape)


def test_tastes_are_where_they_were_planted() -> None:
    user, item, time, theme, appearance = shopping()
    order = np.lexsort((time, user))
    user, item = user[order], item[order]
    same = user[1:] == user[:-1]
    shuffled = np.random.default_rng(0).permutation(item)
    for of, times in ((theme, 5), (appearance, 4)):
        alike, chance = ((of[x[1:]] == of[x[:-1]]) for x in (item, shuffled))
        assert alike[same].mean() > times * chance.mean()
