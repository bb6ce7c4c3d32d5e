"""Texts are read in parts and equal those of the table."""

from pathlib import Path

import pyarrow as pa
import pytest

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.items import build, columns
from alignrec.pipeline.items.columns import Texts
from alignrec.pipeline.sources.base import Product


def test_they_are_those_of_the_table_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (build, io):
        monkeypatch.setattr(module, "PART", 4)
    found = build.Products(10, tmp_path)
    for item in (7, 0, 9, 3):
        found.add(item, Product(f"title {item}", "", [], "", [], {}))
    path = tmp_path / "items.parquet"
    io.write_tables(build.item_tables(found, [f"A{i}" for i in range(10)]), path, schemas.ITEMS, {})
    whole = io.read_table(path, schemas.ITEMS, ["text"])["text"]
    texts = Texts(path)
    assert [*texts] == whole.to_pylist()
    assert (len(texts), whole[7].as_py()) == (10, "title 7.")
    assert texts.slice(3, 6).equals(pa.chunked_array(whole.slice(3, 6)))
    assert texts.slice(8, 9).to_pylist() == ["", "title 9."]
    with pytest.raises(UserError, match="absent"):
        Texts(tmp_path / "absent.parquet")


# --- the level of the category path that best separates items


def test_labels_come_from_the_first_level_that_tells_items_apart() -> None:
    paths = [["shop", "a"]] * 12 + [["shop", "b", "deep"]] * 10 + [["shop", "rare"]] * 3 + [[]]
    labels = columns.label_items(paths)
    assert labels is not None
    rows, label, names = labels
    assert names == ["a", "b"]
    assert rows.tolist() == list(range(22))
    assert label.tolist() == [0] * 12 + [1] * 10
    assert columns.label_items([["shop"]] * 50) is None
    assert columns.label_items([]) is None
