"""Exports of semantic IDs round-trip codes, texts and sequences through readers written from each tool's docs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
import toy
from typer.testing import CliRunner

from alignrec import schemas
from alignrec.commands.app import app
from alignrec.pipeline import io
from alignrec.pipeline.export import content as contents
from alignrec.pipeline.export.content import ExportContent
from alignrec.pipeline.export.write import write_export
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError

EMPTY = 4
"""the item without content, which exports leave out, shifting later ones"""
ASINS = ["A0", "A1", "A2", "A3", "A5"]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = toy.outputs(tmp_path_factory.mktemp("coded"))
    x = np.random.default_rng(1).normal(size=(toy.ITEMS, toy.WIDTH))
    x[EMPTY], x[5] = 0, 3 * x[0]
    toy.write_features(layout, "beit3", x, [f"A{i}" for i in range(toy.ITEMS)])
    return releases.released_with_codes(layout, releases.coded_params(levels=3, features=["beit3"]))


@pytest.fixture
def content(layout: Layout) -> ExportContent:
    return contents.arrange_rows(contents.of_dataset(layout, [], coded=True), None)


def test_index_texts_and_sequences_are_the_datasets(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    (note,) = write_export(content, "minionerec", tmp_path / "to")
    there = [row for row in pq.read_table(layout.codes("beit3"), partitioning=None).to_pylist() if row["codes"]]
    assert [row["asin"] for row in there] == ASINS
    index = json.loads((tmp_path / "to/shop.index.json").read_text())
    ids = [[int(token.strip("<>").split("_")[1]) for token in tokens] for tokens in index.values()]
    assert ids == [[*row["codes"], row["suffix"]] for row in there]
    assert ids[0][:3] == ids[4][:3]  # of two equal vectors
    assert {"".join(token[1] for token in tokens) for tokens in index.values()} == {"abcd"}
    _, counts = np.unique(np.array(ids)[:, :3], axis=0, return_counts=True)
    assert re.search(rf"first 3 tokens .*: {counts[counts > 1].sum()};", note)
    readme = (tmp_path / "to/README.md").read_text()
    assert note in readme
    assert "Items left out for a row of zeros: 1; the others are renumbered." in readme
    items = json.loads((tmp_path / "to/shop.item.json").read_text())
    assert items["2"] == {"title": toy.TITLES[2], "description": "", "brand": "", "categories": "<b>odd</b>"}
    table = io.read_table(layout.interactions, schemas.INTERACTIONS).to_pandas()
    table = table[table["item_id"] != EMPTY].sort_values(["user_id", "timestamp"])
    number = {0: 0, 1: 1, 2: 2, 3: 3, 5: 4}
    assert json.loads((tmp_path / "to/shop.inter.json").read_text()) == {
        str(user): [number[item] for item in group["item_id"]] for user, group in table.groupby("user_id")
    }


def test_a_title_is_one_line_and_an_absent_one_says_so(content: ExportContent, tmp_path: Path) -> None:
    at = content.items.column_names.index("title")
    items = content.items.set_column(at, "title", pa.array(["a\tb\nc", *["x"] * 3, "  "]))
    notes = write_export(replace(content, items=items, interactions=None), "minionerec", tmp_path / "to")
    assert notes[0].endswith("says so: 1.")
    titles = [row["title"] for row in json.loads((tmp_path / "to/shop.item.json").read_text()).values()]
    assert (titles[0], titles[4]) == ("a b c", "[item 4 has no title]")
    assert "Bring sequences of your own" in (tmp_path / "to/README.md").read_text()
    assert not (tmp_path / "to/shop.inter.json").exists()


def test_a_release_exports_the_same_bytes(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    write_export(content, "minionerec", tmp_path / "a")
    given = ("export", layout.release, "--format", "minionerec", "--to", tmp_path / "b")
    done = CliRunner().invoke(app, [str(arg) for arg in given])
    assert done.exit_code == 0, done.output
    ours, theirs = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")} for name in "ab"
    )
    assert ours == theirs


def test_mistakes_are_one_line(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    toy.ended(layout)

    def said(*arguments: object) -> str:
        given = ["export", "shop", "--root", layout.root, "--to", tmp_path / "to", "--format", "minionerec", *arguments]
        done = CliRunner().invoke(app, [str(argument) for argument in given])
        assert done.exit_code == 1, done.output
        return done.output.removeprefix("error: ").removesuffix("\n")

    assert said("--features", "random") == (
        "shop: no semantic IDs of these feature sets; name one under semantic_ids.features and run "
        "`alignrec semantic_ids shop`"
    )
    order = tmp_path / "order.csv"
    order.write_text("asin\titemID\n" + "".join(f"A{i}\t{i}\n" for i in range(toy.ITEMS)))
    assert said("--order", order) == (
        "items without a semantic ID are left out, which leaves gaps in the given order; omit --order"
    )
    table = content.interactions
    assert table is not None
    blank = table.set_column(3, "timestamp", pa.nulls(len(table), pa.int64()))
    with pytest.raises(UserError, match="no timestamps"):
        write_export(replace(content, interactions=blank), "minionerec", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_codes_of_other_items_and_several_coded_sets_are_refused(layout: Layout, tmp_path: Path) -> None:
    both = releases.coded(tmp_path)
    with pytest.raises(UserError, match="choose one with --features: beit3, minilm-cnn"):
        contents.of_dataset(both, [], coded=True)
    table = io.read_codes(both.codes("beit3"))
    names = pa.array([f"B{i}" for i in range(toy.ITEMS)])
    io.write_table(table.set_column(1, "asin", names), both.codes("beit3"), schemas.semantic_ids(2))
    with pytest.raises(UserError, match="of other items; run `alignrec semantic_ids shop`"):
        contents.of_dataset(both, ["beit3"], coded=True)
