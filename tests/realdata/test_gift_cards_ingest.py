"""Gift Cards 2018, raw files as published: exact counts of what comes in, what falls out and why."""

import os
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from webserver import Answer, body, serving, status

import schemas
from pipeline import io
from pipeline.images import crawler
from pipeline.images.crawler import Crawler
from pipeline.run import running
from stages import download, images, interactions, items
from stages.params import load

HERE = Path(__file__).parent
DATA = HERE.parent.parent.parent / "shared" / "data" / "gift_cards_2018"
HOST = "images-na.ssl-images-amazon.com"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/gift_cards_2018 is not next to the project")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the four stages; images come from a mirror on this machine, where every third item's first is gone."""
    actual = tmp_path_factory.mktemp("outputs")
    here = Path.cwd()
    os.chdir(HERE.parent.parent)  # the parameter file names data relative to the project
    try:
        params = load(HERE / "gift_cards.yaml")
        with serving({}) as server, pytest.MonkeyPatch.context() as patch:
            get = Crawler.get
            patch.setattr(Crawler, "get", lambda web, a: get(web, a.replace(f"https://{HOST}", server.address)))
            patch.setattr(crawler, "RATE", 1000.0)
            allowed = params.images.model_copy(update={"private_hosts": ["127.0.0.1"]})
            params = params.model_copy(update={"images": allowed})
            for stage in (download, interactions, items, images):
                with running(stage.__name__.split(".")[1], "gift_cards", params, actual) as run:
                    stage.main(run)
                if stage is items:
                    server.answers |= jpegs(candidates(actual))
    finally:
        os.chdir(here)
    return actual


def candidates(root: Path) -> list[list[str]]:
    table = io.read_table(root / "items" / "gift_cards" / "items.parquet", schemas.ITEMS)
    return table["image_urls"].to_pylist()


def jpegs(urls: list[list[str]]) -> dict[str, Answer]:
    answers = {}
    for i, path in enumerate(dict.fromkeys(urlsplit(url).path for item in urls for url in item)):
        out = BytesIO()
        Image.new("RGB", (40, 30), (i % 256, i // 256, 0)).save(out, "PNG")
        answers[path] = body(out.getvalue())
    gone = [item[0] for item in urls if item][::3]
    return answers | {urlsplit(url).path: status(404) for url in gone}


def record(root: Path, stage: str) -> dict[str, object]:
    actual = io.read_json(root / stage / "gift_cards" / "run.json")
    return {name: actual[name] for name in ("rows_in", "rows_out", "drops")}


def test_download(root: Path) -> None:
    listed = io.read_json(root / "download" / "gift_cards" / "sources.json")
    assert [(r["role"], r["bytes"], r["sha256"][:12]) for r in listed] == [
        ("reviews", 176952, "41e1f0e50d3c"),
        ("metadata", 389825, "24ac90af3eb4"),
    ]


def test_interactions(root: Path) -> None:
    drops = {"below_k_core": 20, "duplicate": 3}
    assert record(root, "interactions") == {"rows_in": 2972, "rows_out": 2949, "drops": drops}
    folder = root / "interactions" / "gift_cards"
    table = io.read_table(folder / "interactions.parquet", schemas.INTERACTIONS)
    splits = table["split"].to_numpy()
    assert [int((splits == s).sum()) for s in range(3)] == [2027, 458, 464]
    assert io.read_table(folder / "users.parquet", schemas.USERS).num_rows == 454
    first = io.read_table(folder / "item_ids.parquet", schemas.ITEM_IDS)[:1].to_pylist()
    assert first == [{"item_id": 0, "asin": "B004LLIKVU"}]


def test_items(root: Path) -> None:
    assert record(root, "items") == {"rows_in": 1547, "rows_out": 147, "drops": {"other_item": 1400}}
    table = io.read_table(root / "items" / "gift_cards" / "items.parquet", schemas.ITEMS)
    assert set(table["text_status"].to_pylist()) == {"ok"}
    assert not [text for text in table["text"].to_pylist() if "<" in text or "&amp;" in text or "&nbsp;" in text]
    assert io.read_table(root / "items" / "gift_cards" / "rejects.parquet", schemas.REJECTS).num_rows == 0


def test_images_end_with_a_reason_and_none_is_lost(root: Path) -> None:
    assert record(root, "images") == {"rows_in": 147, "rows_out": 115, "drops": {"missing": 32}}
    table = io.read_table(root / "images" / "gift_cards" / "images-00000.parquet", schemas.IMAGES)
    wanted = candidates(root)
    second = [row for row in table.to_pylist() if row["url"] in wanted[row["item_id"]][1:2]]
    assert (len(wanted), len(second)) == (147, 40)  # every third of 115, and one that shares its address
    assert {row["reason"] for row in table.to_pylist() if row["status"] == "missing"} == {"no address in the metadata"}
    notes = io.read_json(root / "images" / "gift_cards" / "run.json")["notes"]
    assert (notes["duplicates"], notes["shared"]) == (0, [])
