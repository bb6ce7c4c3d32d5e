"""Exports of semantic IDs: readers written from each tool's documents give back codes and sequences."""

import ast
import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import coded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from typer.testing import CliRunner

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.export import content as contents
from pipeline.export import rows
from pipeline.export.content import ExportContent
from pipeline.export.write import CODED, write
from pipeline.layout import Layout
from pipeline.semantic_ids import files
from stages.cli import app

EMPTY = 4
"""the item without content, which no export holds; later ones move up"""
ASINS = ["A0", "A1", "A2", "A3", "A5"]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = toy.outputs(tmp_path_factory.mktemp("coded"))
    x = np.random.default_rng(1).normal(size=(toy.ITEMS, toy.WIDTH))
    x[EMPTY], x[5] = 0, 3 * x[0]
    toy.write_features(layout, "beit3", x, [f"A{i}" for i in range(toy.ITEMS)])
    return coded.released(layout, coded.params(levels=3, features=["beit3"]))


@pytest.fixture
def content(layout: Layout) -> ExportContent:
    return rows.arranged(contents.of_dataset(layout, [], coded=True), "drawn", None)


@pytest.fixture(scope="module")
def ids(layout: Layout) -> np.ndarray:
    """Codes and suffix of the items with content, int32 [5, 4], read from the stage's own file."""
    table = pq.read_table(layout.semantic_ids("beit3", "residual-kmeans") / "semantic_ids.parquet", partitioning=None)
    there = [row for row in table.to_pylist() if row["codes"] is not None]
    assert [row["asin"] for row in there] == ASINS
    return np.array([[*row["codes"], row["suffix"]] for row in there])


def sequences(layout: Layout, *splits: int) -> dict[int, list[int]]:
    """Return user -> items of some splits in the order of time, numbered as in an export."""
    table = io.read_table(layout.interactions, schemas.INTERACTIONS).to_pandas()
    table = table[table["split"].isin(splits) & (table["item_id"] != EMPTY)].sort_values(["user_id", "timestamp"])
    number = {0: 0, 1: 1, 2: 2, 3: 3, 5: 4}
    return {u: [number[i] for i in group["item_id"]] for u, group in table.groupby("user_id")}


def examples(layout: Layout, split: int) -> list[tuple[int, list[int], int]]:
    """Return user, history and target of a split, by hand."""
    if split == 0:
        return [(u, seq[:at], seq[at]) for u, seq in sequences(layout, 0).items() for at in range(1, len(seq))]
    before, now = sequences(layout, *range(split)), sequences(layout, split)
    return [(u, before[u], target) for u, seq in now.items() for target in seq if before.get(u)]


# --- MiniOneRec and LC-Rec


def test_minionerec_reads_tokens_texts_and_examples(
    content: ExportContent, layout: Layout, ids: np.ndarray, tmp_path: Path
) -> None:
    write(content, "minionerec", tmp_path / "to")
    index = json.loads((tmp_path / "to/shop.index.json").read_text())
    assert list(index) == ["0", "1", "2", "3", "4"]
    unique = json.loads((tmp_path / "to/shop.unique.index.json").read_text())
    settled = ids[:, :3].copy()
    assert np.array_equal(settled[0], settled[4])  # of two equal vectors
    settled[4, 2] = nearest_free(layout, settled)
    for form, letters, expected in ((index, "abc", settled), (unique, "abcd", ids)):  # MiniOneRec joins the first three
        read = [[int(token.strip("<>").split("_")[1]) for token in tokens] for tokens in form.values()]
        assert np.array_equal(read, expected)
        assert {"".join(t[1] for t in tokens) for tokens in form.values()} == {letters}
    items = json.loads((tmp_path / "to/shop.item.json").read_text())
    assert items["2"] == {"title": toy.TITLES[2], "description": "", "brand": "", "categories": "<b>odd</b>"}
    for number, split in enumerate(("train", "valid", "test")):
        lines = (tmp_path / f"to/shop.{split}.inter").read_text().splitlines()
        assert lines[0] == "user_id:token\titem_id_list:token_seq\titem_id:token"
        cells = [line.split("\t") for line in lines[1:]]
        read_examples = [(int(u), [int(i) for i in history.split()], int(target)) for u, history, target in cells]
        assert read_examples == examples(layout, number)
    whole = json.loads((tmp_path / "to/shop.inter.json").read_text())
    assert {int(user): items for user, items in whole.items()} == sequences(layout, 0, 1, 2)


def nearest_free(layout: Layout, codes: np.ndarray) -> int:
    """Return the last code, of those that no item of the same first two has, that stands for the last item best."""
    method = files.load(layout.semantic_ids("beit3", "residual-kmeans")).method
    x = io.matrix(io.read_features(layout.features("beit3"))["vector"])[5]
    taken = {row[2] for row in codes if np.array_equal(row[:2], codes[4, :2])}
    free = [code for code in range(3) if code not in taken]
    far = [
        np.linalg.norm(x / np.linalg.norm(x) - method.decode(np.array([[*codes[4, :2], c]], np.int32))) for c in free
    ]
    return free[int(np.argmin(far))]


def with_facts(content: ExportContent, **changed: object) -> ExportContent:
    assert content.codes is not None
    return replace(content, codes=replace(content.codes, facts=content.codes.facts.model_copy(update=changed)))


def test_the_cost_of_codes_without_a_suffix_is_stated(content: ExportContent, tmp_path: Path) -> None:
    (cost,) = write(content, "minionerec", tmp_path / "to")
    assert re.search(r"2 items .* 3 codes .*, 1 take .* -?\d\.\d{3} for these, \d\.\d{3} before\.", cost)
    assert cost in (tmp_path / "to/README.md").read_text().splitlines()
    (shared,) = write(with_facts(content, collisions="keep"), "minionerec", tmp_path / "kept")
    assert shared.endswith("MiniOneRec reads no fourth: 2.")


def test_a_history_is_the_latest_items_and_a_title_one_line(content: ExportContent, tmp_path: Path) -> None:
    n = 30
    table = pa.table(
        {
            "user_id": pa.array([0] * n, pa.int32()),
            "item_id": pa.array([i % 5 for i in range(n)], pa.int32()),
            "rating": pa.nulls(n, pa.float32()),
            "timestamp": pa.array(range(n, 0, -1), pa.int64()),
            "split": pa.array([0] * n, pa.int8()),
        }
    ).cast(schemas.INTERACTIONS)
    at = content.items.column_names.index("title")
    items = content.items.set_column(at, "title", pa.array(["a\tb\nc"] * 5))
    write(replace(content, items=items, interactions=table), "minionerec", tmp_path / "to")
    last = (tmp_path / "to/shop.train.inter").read_text().splitlines()[-1].split("\t")
    assert last == ["0", "0 4 3 2 1 0 4 3 2 1", "0"]
    assert json.loads((tmp_path / "to/shop.item.json").read_text())["0"]["title"] == "a b c"


def test_items_that_share_an_id_or_have_no_title_are_counted(content: ExportContent, tmp_path: Path) -> None:
    assert content.codes is not None
    table, items = content.codes.table.to_pylist(), content.items.to_pylist()
    table[1] |= {"codes": table[0]["codes"], "suffix": table[0]["suffix"] + 1}
    items[4] |= {"title": "  ", "description": ""}
    codes = replace(content.codes, table=pa.Table.from_pylist(table, content.codes.table.schema))
    given = replace(content, codes=codes, items=pa.Table.from_pylist(items, content.items.schema))
    _, counts = np.unique(codes.matrix(), axis=0, return_counts=True)
    shared, blank = write(with_facts(given, collisions="keep"), "minionerec", tmp_path / "to")
    assert re.search(rf"share .*: {counts[counts > 1].sum()}\.$", shared)
    assert re.search(r"title.*: 1\.$", blank)
    how = (tmp_path / "to/README.md").read_text()
    assert {shared, blank} <= set(how.splitlines())
    assert "bash sft.sh --" not in how
    assert "--index_file .unique.index.json" in how
    titles = [row["title"] for row in json.loads((tmp_path / "to/shop.item.json").read_text()).values()]
    assert titles[4] == "[item 4 has no title]"


def test_minionerec_gets_no_other_number_of_tokens(content: ExportContent, tmp_path: Path) -> None:
    assert content.codes is not None
    two = [row | {"codes": row["codes"][:2]} for row in content.codes.table.to_pylist()]
    codes = replace(content.codes, table=pa.Table.from_pylist(two, schemas.semantic_ids(2)))
    notes = write(with_facts(replace(content, codes=codes), levels=2), "minionerec", tmp_path / "two")
    assert notes[0].startswith("MiniOneRec reads 3 codes an item, and these are 2: for it, set semantic_ids.levels: 3")
    assert not (tmp_path / "two/shop.index.json").exists()
    assert "convert_dataset" not in (tmp_path / "two/README.md").read_text()


# --- RQ-VAE-Recommender


def test_rqvae_recommender_reads_its_raw_folder_and_unique_ids(
    content: ExportContent, layout: Layout, ids: np.ndarray, tmp_path: Path
) -> None:
    at = content.items.column_names.index("title")
    odd = ['quo"te', "it's \\", "bowl 🍜", "ünï", ""]
    items = content.items.set_column(at, "title", pa.array(odd))
    write(replace(content, items=items), "rqvae-recommender", tmp_path / "to")
    assert np.array_equal(np.load(tmp_path / "to/semantic_ids.npy"), ids)
    assert "\ntrain.pretrained_rqvae_path=None\n" in (tmp_path / "to/README.md").read_text()
    raw = tmp_path / "to/raw/shop"
    lines = [[int(i) for i in line.split()] for line in (raw / "sequential_data.txt").read_text().splitlines()]
    whole = sequences(layout, 0, 1, 2)
    assert {u - 1: [i - 1 for i in items] for u, *items in lines} == {u: s for u, s in whole.items() if len(s) > 2}
    numbers = json.loads((raw / "datamaps.json").read_text())["item2id"]
    assert numbers == {asin: str(i) for i, asin in enumerate(ASINS, start=1)}
    with gzip.open(raw / "meta.json.gz") as file:
        meta = [ast.literal_eval(line.decode()) for line in file]
    assert [(m["asin"], m["title"]) for m in meta] == list(zip(ASINS, odd, strict=True))
    assert all({"brand", "price", "categories"} <= m.keys() and isinstance(m["categories"][0], list) for m in meta)


def test_ids_without_a_suffix_are_numbered_for_it(layout: Layout, tmp_path: Path) -> None:
    codes = contents.of_dataset(layout, [], coded=True).codes
    assert codes is not None
    facts, table = codes.facts.model_copy(update={"collisions": "keep"}), codes.table.filter(codes.coded)
    blank = table.set_column(table.column_names.index("suffix"), "suffix", pa.nulls(len(table), pa.int32()))
    assert np.array_equal(replace(codes, facts=facts, table=blank).numbered()[:, -1], table["suffix"].to_numpy())


# --- all of them


@pytest.mark.parametrize("form", CODED)
def test_two_exports_are_the_same_bytes_and_a_releases_the_same(
    content: ExportContent, layout: Layout, tmp_path: Path, form: str
) -> None:
    write(content, form, tmp_path / "a")
    given = ("export", layout.release, "--format", form, "--codes", "residual-kmeans", "--to", tmp_path / "b")
    done = CliRunner().invoke(app, [str(arg) for arg in given])
    assert done.exit_code == 0, done.output
    ours, theirs = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*") if p.suffix != ".md"}
        for name in "ab"
    )
    assert ours == theirs
    text = (tmp_path / "a/README.md").read_text()
    assert "- `beit3` by residual-kmeans: 3 codes of 0 .. 2; a last code separates items of equal codes" in text
    assert "Items left out as they have no semantic ID: 1; the others are renumbered." in text
    assert "filled" not in text


@pytest.mark.parametrize("form", CODED)
def test_without_interactions_no_file_of_sequences_is_promised(
    content: ExportContent, tmp_path: Path, form: str
) -> None:
    write(replace(content, interactions=None), form, tmp_path / "to")
    text = (tmp_path / "to/README.md").read_text()
    assert "Bring sequences of your own" in text
    names = {p.name for p in (tmp_path / "to").rglob("*")}
    assert names.isdisjoint({"shop.train.inter", "sequential_data.txt"})


def test_mistakes_are_one_line(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        given = ["export", "shop", "--root", layout.root, "--to", tmp_path / "to", *arguments]
        done = CliRunner().invoke(app, [str(argument) for argument in given])
        assert done.exit_code == 1, done.output
        return done.output.removeprefix("error: ").removesuffix("\n")

    assert said("--format", "gird").startswith("no format 'gird'; there are mmrec, ")
    assert said("--format", "npy", "--codes", "random").startswith(
        "--codes is for formats of semantic IDs, minionerec, "
    )
    there = "there are beit3 by random, beit3 by residual-kmeans"
    assert said("--format", "minionerec", "--codes", "rqvae") == f"no semantic IDs by rqvae; {there}"
    assert said("--format", "minionerec", "--features", "random") == f"no semantic IDs of random; {there}"
    order = tmp_path / "order.csv"
    order.write_text("asin\titemID\n" + "".join(f"A{i}\t{i}\n" for i in range(toy.ITEMS)))
    assert said("--format", "minionerec", "--order", order).startswith(
        "items without content have no semantic ID, which leaves"
    )
    with pytest.raises(UserError, match=r"'minionerec' .*semantic IDs"):
        write(contents.of_dataset(layout, []), "minionerec", tmp_path / "to")
    table = content.interactions
    assert table is not None
    blank = table.set_column(3, "timestamp", pa.nulls(len(table), pa.int64()))
    with pytest.raises(UserError, match="no timestamps"):
        write(replace(content, interactions=blank), "minionerec", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_where_nothing_is_coded_the_key_to_set_is_named(tmp_path: Path) -> None:
    toy.outputs(tmp_path)

    def said(*arguments: str) -> str:
        command = ["export", "shop", "--root", str(tmp_path), "--to", str(tmp_path / "to"), "--format", "minionerec"]
        return CliRunner().invoke(app, [*command, *arguments]).output

    run = "in the parameter file and run `alignrec semantic_ids shop`\n"
    none = "error: no semantic IDs{}; there are none: set `semantic_ids: {{features: [{}]}}` " + run
    assert said() == none.format("", "beit3")
    assert said("--features", "minilm-cnn") == none.format(" of minilm-cnn", "minilm-cnn")
    for name in toy.SETS:
        shutil.rmtree(tmp_path / "encode/shop" / name)
    assert said() == "error: shop: no feature set to code; run `alignrec encode shop` first\n"


def test_codes_of_older_vectors_are_refused(layout: Layout, tmp_path: Path) -> None:
    again = Layout(shutil.copytree(layout.root, tmp_path / "outputs"), "shop")
    toy.write_features(again, "beit3", np.ones((toy.ITEMS, 2)), [f"A{i}" for i in range(toy.ITEMS)])
    with pytest.raises(UserError, match=r"'beit3'.*semantic_ids"):
        contents.of_dataset(again, [], coded=True)
