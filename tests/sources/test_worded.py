"""Unused text: more columns joined by a key, lists without levels, and the share that is used."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.items import build
from pipeline.sources import inspect
from pipeline.sources.tabular import Tabular, TabularSource
from stages.new import look, write
from stages.params import load

ITEMS = [
    {
        "id": i,
        "name": f"movie {i}",
        "genres": sorted({"comedy", ["action", "drama", "war"][i % 3], ["alien", "sport"][i % 2]}),
        "plot": "A man walks. Far",
        "review": f"what a fine film number {i}",
        "tags": ["slow burn", "twist ending"],
        "code": f"x{i}",
        "link": f"https://a.example/{i} {i}",
        "year": 1990 + i,
    }
    for i in range(60)
]


def source(**more: Any) -> Tabular:
    columns = {"item": "id", "title": "name", "categories": "genres", "description": "plot"}
    given = {"kind": "tabular", "interactions": "r.csv", "items": "items.jsonl", "item_columns": columns}
    return Tabular(TabularSource.model_validate(given | more))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    rows = [f"u{u},{(2 * u + n) % 60}" for u in range(30) for n in range(12)]
    (tmp_path / "ratings.csv").write_text("\n".join(["user,item", *rows]))
    return tmp_path


def test_columns_are_joined_to_the_text_and_no_longer_left_over() -> None:
    product = source(text=["review", "tags"]).product(ITEMS[1])
    assert product.description == "A man walks. Far. what a fine film number 1. slow burn, twist ending."
    assert set(product.extra) == {"code", "link", "year"}
    assert source().product(ITEMS[1]).description == "A man walks. Far"


def test_a_column_that_is_not_there_is_refused(files: Path) -> None:
    with pytest.raises(UserError, match=r"'text'.*'revue'.*'review'"):
        source(text=["revue"]).metadata({"metadata": files / "items.jsonl"})


def test_a_list_without_levels_is_one_level() -> None:
    assert source(flat_categories=True).product(ITEMS[0]).categories == ["action, alien, comedy"]
    assert source().product(ITEMS[0]).categories == ["action", "alien", "comedy"]


def test_lists_are_told_from_paths() -> None:
    assert inspect.is_flat([item["genres"] for item in ITEMS])  # type: ignore[misc]
    paths = [["toys", ["cars", "dolls"][i % 2], f"kind {i % 4}", "other"] for i in range(60)]
    assert not inspect.is_flat(paths)
    assert not inspect.is_flat([["toys"]] * 60)
    assert not inspect.is_flat([])


def test_new_offers_the_columns_and_sees_the_list(files: Path) -> None:
    seen = partial(look, "mine", Path("ratings.csv"), Path("items.jsonl"), None, [])
    said = list(write("mine", seen, Path("params.yaml"), False))
    assert any(line.strip().startswith("words not used: review, tags") for line in said)
    text = (files / "params.yaml").read_text()
    assert "# text: [review, tags]" in text
    assert yaml.safe_load(text)["sources"]["mine"]["flat_categories"]
    (files / "params.yaml").write_text(text.replace("    # text: [review, tags] # would", "    text: [review, tags] #"))
    assert load(files / "params.yaml", "mine").sources["mine"].text == ["review", "tags"]  # type: ignore[attr-defined]


def test_the_share_of_text_that_is_read_is_told() -> None:
    lines = [json.dumps(item).encode() for item in ITEMS]
    columns = {"item": "id", "title": "name"}
    given = TabularSource.model_validate({"kind": "tabular", "interactions": "r", "item_columns": columns})
    names = [str(item["id"]) for item in ITEMS]
    found = build.read(lines, given, names, "items.jsonl", 0.0)
    share, left_out = build.share_read(build.tables(found.products, names), ["title"])
    parts = {"plot": len("A man walks. Far") * 60, "tags": len("slow burntwist ending") * 60}
    parts["review"] = sum(len(str(item["review"])) for item in ITEMS)
    total = sum(parts.values()) + sum(len(str(item["name"])) for item in ITEMS)
    assert left_out == {name: pytest.approx(n / total, abs=1e-6) for name, n in parts.items()}
    assert share == pytest.approx(1 - sum(left_out.values()), abs=1e-6)
