"""A source of a published split and Amazon's raw metadata keeps numbers and parts, and finds content by ASIN."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run_stages
from ratings import write_inter

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.settings import protocol_of
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.base import declared_source
from alignrec.pipeline.vectors.mapping_files import read_numbering
from tests.vectors import formats

ITEMS, USERS = 30, 12
ASINS = [f"B{7 * i % ITEMS:09d}" for i in range(ITEMS)]
PEOPLE = [f"A{u:03d}" for u in range(USERS)]
PAIRS = [(u, (5 * u + 3 * n) % ITEMS, (0, 0, 0, 1, 2)[n % 5]) for u in range(USERS) for n in range(10)]


def meta2014(asin: str) -> str:
    return repr({"asin": asin, "title": f"toy {asin}", "categories": [["Baby", "Toys"]], "imUrl": f"{asin}.jpg"})


def meta2018(asin: str) -> str:
    return json.dumps({"asin": asin, "title": f"toy {asin}", "category": ["Baby", "Toys"], "imageURL": [f"{asin}.jpg"]})


def meta2023(asin: str) -> str:
    images = [{"large": f"https://e.example/{asin}.jpg", "variant": "MAIN"}]
    return json.dumps({"parent_asin": asin, "title": f"toy {asin}", "categories": ["Baby"], "images": images})


KINDS: dict[str, tuple[str, Callable[[str], str]]] = {
    "amazon2014": ("meta.json.gz", meta2014),
    "amazon2018": ("meta.json.gz", meta2018),
    "amazon2023": ("meta.jsonl.gz", meta2023),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_inter(tmp_path / "toy.inter", PAIRS)
    formats.mapping(tmp_path, ASINS)
    users = "".join(f"{name}\t{u}\n" for u, name in enumerate(PEOPLE))
    (tmp_path / "u_id_mapping.csv").write_text(f"user_id\tuserID\n{users}")
    return tmp_path


def project(kind: str, without: tuple[str, ...] = (), **split: str) -> Layout:
    name, line = KINDS[kind]
    lines = "".join(f"{line(asin)}\n" for asin in sorted(ASINS) if asin not in without) + f"{line('B999999999')}\n"
    Path(name).write_bytes(gzip.compress(lines.encode()))
    given = {"interactions": "toy.inter", "items": "i_id_mapping.csv", "users": "u_id_mapping.csv"} | split
    plain = {"kind": "mmrec", "interactions": "toy.inter"}
    sources = {"toy": {"kind": kind, "metadata": name, "split": given}, "plain": plain}
    params = {"datasets": ["toy", "plain"], "sources": sources, "benchmark": {"ks": [5, 10]}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    return Layout(Path("outputs"), "toy")


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_parts_and_fingerprint_are_the_splits_and_content_comes_by_asin(folder: Path, kind: str) -> None:
    layout = project(kind, without=(ASINS[4],))
    said = run_stages("toy", "download", "interactions", "items")
    run_stages("plain", "download", "interactions")
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS)
    expected = sorted((u, i, x) for u, i, x in PAIRS)
    assert sorted(zip(*(rows[c].to_pylist() for c in ("user_id", "item_id", "split")), strict=True)) == expected
    params, prints = load(Path("params.yaml")), []
    for name in ("toy", "plain"):
        split = inputs.read_inputs(Layout(Path("outputs"), name), None).split
        prints.append(protocol_of(params, name, split).label)
    assert prints[0] == prints[1]
    assert prints[0]["protocol"] == "mmrec"
    assert io.read_table(layout.users, schemas.USERS)["user"].to_pylist() == PEOPLE
    items = io.read_table(layout.items, schemas.ITEMS)
    assert items["asin"].to_pylist() == ASINS
    assert items["title"].to_pylist() == [f"toy {asin}" if i != 4 else "" for i, asin in enumerate(ASINS)]
    assert [bool(urls) for urls in items["image_urls"].to_pylist()] == [i != 4 for i in range(ITEMS)]
    record = json.loads(layout.run_record("items").read_text())
    assert record["drops"] == {"text_no_metadata": 1, "other_item": 1}
    assert f"1 of 30 items are not in {KINDS[kind][0]}, and have neither text nor image of their own" in said


def test_users_without_a_mapping_are_numbers_and_a_table_with_more_columns_is_one(folder: Path) -> None:
    rows = [f"{i},{asin},https://e.example/{i}.jpg\n" for i, asin in enumerate(ASINS)]
    Path("item_urls.csv").write_text("itemID,asin,imUrl\n" + "".join(rows))
    layout = project("amazon2014", items="item_urls.csv")
    given = yaml.safe_load(Path("params.yaml").read_text())
    del given["sources"]["toy"]["split"]["users"]
    Path("params.yaml").write_text(yaml.safe_dump(given))
    run_stages("toy", "download", "interactions")
    assert io.read_table(layout.users, schemas.USERS)["user"].to_pylist() == [str(u) for u in range(USERS)]
    assert io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist() == ASINS


def mapping(*lines: str) -> str:
    return "asin\titemID\n" + "".join(f"{line}\n" for line in lines)


WHOLE = [f"{asin}\t{i}" for i, asin in enumerate(ASINS)]
BAD = {
    "an ASIN twice": (mapping(*WHOLE[:-1], f"{ASINS[2]}\t29"), f"asin '{ASINS[2]}' is empty or occurs twice"),
    "too few": (mapping(*WHOLE[:-1]), "29 rows, expected itemID 0 .. 29"),
    "a gap": (mapping(*WHOLE[:-1], f"{ASINS[29]}\t40"), "30 rows, expected itemID 0 .. 29"),
    "no ASIN": (mapping(*WHOLE[:-1], "\t29"), "asin '' is empty"),
    "other columns": ("a,b,c\n1,2,3\n", "columns asin and itemID; it has a, b, c"),
    "nothing": ("", "the file is empty"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_a_mapping_that_does_not_fit_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "i.csv").write_text(text)
    with pytest.raises(UserError, match=said) as e:
        read_numbering(tmp_path / "i.csv", "itemID", ("asin", "parent_asin"), ITEMS)
    assert "\n" not in str(e.value)


SPLIT = {"interactions": "a.inter", "items": "i.csv"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"reviews": "r.json", "metadata": "m.json", "split": SPLIT}, "reviews: give either"),
        ({"metadata": "m.json"}, "reviews: give either"),
        ({"split": SPLIT}, "metadata: is required"),
        ({"metadata": "m.json", "split": SPLIT | {"item": "x"}}, "unknown key .*did you mean 'items'"),
        ({"metadata": "m.json", "split": {"interactions": "a.inter"}}, "split.items' is required"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said):
        declared_source({"kind": "amazon2014", **keys}, "sources.toy")
