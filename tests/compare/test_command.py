"""Feature sets and releases side by side: known geometry, refused files, version bumps, and the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import toy
from commands import alignrec
from rich.console import Console

import schemas
from pipeline import io
from pipeline.compare import command, feature_set, judge, releases, similarity
from pipeline.compare.page import changes_html
from pipeline.errors import UserError
from pipeline.experiment.plans import compare as plans
from pipeline.facts import comparison as facts
from pipeline.facts.table import Table
from pipeline.items import identifiers
from pipeline.layout import Layout
from pipeline.ops import shapes
from pipeline.probe import asking
from pipeline.probe.base import Data
from pipeline.release import manifest, verify
from pipeline.report.terminal import drawn
from pipeline.run import running
from stages import probe, publish
from stages.params import Params

ASINS = [f"A{i}" for i in range(toy.ITEMS)]
VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path / "outputs")


def table(ids: str, values: list[object], vectors: np.ndarray = VECTORS) -> pa.Table:
    return pa.table({ids: values, "vector": io.vectors(vectors)})


# --- anybody's files


def test_of_several_columns_of_vectors_one_is_named(layout: Layout, tmp_path: Path) -> None:
    both = {"asin": ASINS, "text": VECTORS.tolist(), "image": (VECTORS * 2).tolist()}
    pq.write_table(pa.table(both), tmp_path / "two.parquet")
    read = feature_set.read(f"{tmp_path}/two.parquet:image", layout, ASINS)
    assert read.name == "image"
    np.testing.assert_array_equal(read.vectors, VECTORS * 2)
    assert feature_set.read(f"mine={tmp_path}/two.parquet:text", layout, ASINS).name == "mine"
    with pytest.raises(UserError, match=r"2 columns hold vectors \(text, image\), expected one; name one, as in two"):
        feature_set.read(f"{tmp_path}/two.parquet", layout, ASINS)
    with pytest.raises(UserError, match="no column 'title' of vectors; it has text, image"):
        feature_set.read(f"{tmp_path}/two.parquet:title", layout, ASINS)


def test_an_encoded_set_and_files_of_every_kind_are_read_in_item_order(layout: Layout, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS.astype(np.float64))
    torch.save(torch.from_numpy(VECTORS), tmp_path / "b.pt")
    torch.save({"feat": torch.from_numpy(VECTORS)}, tmp_path / "c.pth")
    pq.write_table(pa.table({"Parent_ASIN": ASINS, "embedding": VECTORS.tolist()}), tmp_path / "d.parquet")
    turned = list(range(6))[::-1]
    pq.write_table(table("asin", [ASINS[i] for i in turned], VECTORS[turned]), tmp_path / "e.parquet")
    pq.write_table(table("item_id", turned, VECTORS[turned]), tmp_path / "f.parquet")
    (tmp_path / "g").mkdir()
    pq.write_table(table("asin", ASINS[:4], VECTORS[:4]), tmp_path / "g/1.parquet")
    pq.write_table(table("asin", ASINS[4:], VECTORS[4:]), tmp_path / "g/2.parquet")
    for name, how in zip(
        ("a.npy", "b.pt", "c.pth", "d.parquet", "e.parquet", "f.parquet", "g"),
        ["--order gives another order"] * 3
        + ["matched by Parent_ASIN", "matched by asin", "matched by item_id", "matched by asin"],
        strict=True,
    ):
        read = feature_set.read(str(tmp_path / name), layout, ASINS)
        assert np.array_equal(read.vectors, VECTORS), name
        assert read.vectors.dtype == np.float32
        assert read.source.endswith(how)
    encoded = feature_set.read("mine=beit3", layout, ASINS)
    assert encoded.name == "mine"
    assert np.array_equal(encoded.vectors, io.matrix(io.read_features(layout.features("beit3"))["vector"]))


@pytest.mark.parametrize(
    ("ids", "values", "said"),
    [
        ("asin", ["A0", "A1", "A2", "A3", "A4", "B5"], "1 rows are of no item here, such as 'B5'; 1 items have no row"),
        ("item_id", [0, 1, 2, 3, 4, 6], "1 rows are of no item here, such as '6'; 1 items have no row, such as 'A5'"),
    ],
)
def test_other_items_are_counted_and_items_without_a_row_are_left_out(
    layout: Layout, tmp_path: Path, ids: str, values: list[object], said: str
) -> None:
    pq.write_table(table(ids, values), tmp_path / "x.parquet")
    read = feature_set.read(str(tmp_path / "x.parquet"), layout, ASINS)
    assert said in read.source
    assert read.source.endswith(", and are left out")
    assert np.array_equal(read.vectors[:5], VECTORS[:5])
    assert read.there is not None
    assert read.there.tolist() == [True] * 5 + [False]
    assert feature_set.common([read, replace(read, there=None)]).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="x, x: 1 items have a row in all; give larger files"):
        feature_set.common([read, replace(read, there=np.arange(6) > 3)])


@pytest.mark.parametrize("name", ["itemID", "movieId", "product_id", "ASIN", "article-id"])
def test_identifiers_have_the_names_that_alignrec_new_knows(layout: Layout, tmp_path: Path, name: str) -> None:
    pq.write_table(table(name, ASINS[::-1]), tmp_path / "x.parquet")
    read = feature_set.read(str(tmp_path / "x.parquet"), layout, ASINS)
    assert read.source == f"x.parquet, rows matched by {name}"
    assert np.array_equal(read.vectors, VECTORS[::-1])
    (tmp_path / "x.jsonl").write_text("".join(f'{{"{name}": "A{i}", "v": [{i}]}}\n' for i in range(6)))
    assert feature_set.read(str(tmp_path / "x.jsonl"), layout, ASINS).vectors[:, 0].tolist() == [*range(6)]


def test_an_item_twice_is_refused(layout: Layout, tmp_path: Path) -> None:
    pq.write_table(table("asin", ["A0", "A1", "A2", "A3", "A4", "A4"]), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="asin 'A4' occurs twice"):
        feature_set.read(str(tmp_path / "x.parquet"), layout, ASINS)


@pytest.mark.parametrize("name", [*identifiers.NAMES, "ITEM"])
def test_shuffled_rows_are_matched_by_every_known_name(layout: Layout, tmp_path: Path, name: str) -> None:
    turned = [3, 1, 5, 0, 2, 4]
    pq.write_table(table(name, [ASINS[i] for i in turned], VECTORS[turned]), tmp_path / "x.parquet")
    assert np.array_equal(feature_set.read(str(tmp_path / "x.parquet"), layout, ASINS).vectors, VECTORS)


def test_an_order_is_never_guessed(layout: Layout, tmp_path: Path) -> None:
    turned = [3, 1, 5, 0, 2, 4]
    path = tmp_path / "x.parquet"
    pq.write_table(table("goods", [ASINS[i] for i in turned], VECTORS[turned]), path)
    with pytest.raises(UserError, match=r"no column identifies the items \(asin, item_id, .*--order"):
        feature_set.read(str(path), layout, ASINS)
    both = table("asin", [ASINS[i] for i in turned], VECTORS[turned])
    pq.write_table(both.append_column("id", pa.array(range(6))), path)
    with pytest.raises(UserError, match="columns asin and id"):
        feature_set.read(str(path), layout, ASINS)
    pq.write_table(both.append_column("id", pa.array(range(70, 76))), path)  # fits no item: a number of their own
    assert np.array_equal(feature_set.read(str(path), layout, ASINS).vectors, VECTORS)
    pq.write_table(both.append_column("item_id", pa.array(turned)), path)  # both, and they agree
    assert np.array_equal(feature_set.read(str(path), layout, ASINS).vectors, VECTORS)


def test_numbers_that_are_also_the_sources_identifiers_are_refused(layout: Layout, tmp_path: Path) -> None:
    path, asins = tmp_path / "x.parquet", ["5", "4", "3", "2", "1", "0"]
    pq.write_table(table("item_id", list(range(6))), path)
    with pytest.raises(UserError, match=r"'item_id' .*asin"):
        feature_set.read(str(path), layout, asins)
    pq.write_table(table("item_id", list(range(6))).append_column("asin", pa.array(asins)), path)
    assert np.array_equal(feature_set.read(str(path), layout, asins).vectors, VECTORS)


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_a_mapping_file_orders_rows_without_identifiers(layout: Layout, tmp_path: Path, delimiter: str) -> None:
    turned = [3, 1, 5, 0, 2, 4]
    np.save(tmp_path / "x.npy", VECTORS[turned])
    pq.write_table(pa.table({"v": VECTORS[turned].tolist()}), tmp_path / "x.parquet")
    order = tmp_path / "i_id_mapping.csv"
    lines = [f"{ASINS[i]}{delimiter}{row}" for row, i in enumerate(turned)]
    order.write_text("\n".join([f"asin{delimiter}itemID", *sorted(lines)]) + "\n")
    for name in ("x.npy", "x.parquet"):
        read = feature_set.read(str(tmp_path / name), layout, ASINS, order)
        assert np.array_equal(read.vectors, VECTORS)
        assert read.source.endswith("rows in the order of i_id_mapping.csv")
    for text, said in (
        ("asin\titem\nA0\t0\n", "6 rows, .* names 1"),
        ("asin\titemID\nB0\t0\n", "expected a column of this dataset's identifiers and one of rows"),
        ("asin\titemID\nA0\t0\nA1\t2\n", "expected a column of"),
        ("asin\titemID\nA0\t0\nA0\t1\n", "asin 'A0' occurs twice"),
        ("asin\titemID\nA0\n", "not readable as a mapping file"),
        ("", "mapping"),
    ):
        order.write_text(text)
        with pytest.raises(UserError, match=said):
            feature_set.read(str(tmp_path / "x.npy"), layout, ASINS, order)
    with pytest.raises(UserError, match=r"^\S*ordre.csv: .*--order"):
        feature_set.read(str(tmp_path / "x.npy"), layout, ASINS, tmp_path / "ordre.csv")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (VECTORS[:5], "5 rows, the dataset has 6 items"),
        (VECTORS[0], r"is float32 \(2,\), expected numbers \[items, width\]"),
        (np.where(VECTORS == 5, np.nan, VECTORS), "row 2: not finite"),
        (np.where(VECTORS == 5, 1e300, VECTORS.astype(float)), "row 2: not finite in single precision"),
        (VECTORS[:, :0], r"is float32 \(6, 0\), expected numbers"),
        (np.array([["a", "b"]] * 6), "expected numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(layout: Layout, tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "x.npy", array)
    if array.dtype.kind == "f":
        torch.save(torch.from_numpy(array), tmp_path / "x.pt")
    for file in tmp_path.glob("x.*"):
        with pytest.raises(UserError, match=said):
            feature_set.read(str(file), layout, ASINS)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/tmp/alignrec-was-here", "w"))


def test_pickled_code_is_never_run(layout: Layout, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([Evil()], object), allow_pickle=True)
    torch.save(Evil(), tmp_path / "x.pt")
    for name in ("x.npy", "x.pt"):
        with pytest.raises(UserError, match=name):
            feature_set.read(str(tmp_path / name), layout, ASINS)
    assert not Path("/tmp/alignrec-was-here").exists()


def test_a_name_is_no_path_and_a_path_may_hold_an_equals_sign(layout: Layout, tmp_path: Path) -> None:
    np.save(tmp_path / "a=b.npy", VECTORS)
    assert feature_set.read(str(tmp_path / "a=b.npy"), layout, ASINS).name == "a-b"
    assert feature_set.read(f"mine={tmp_path}/a=b.npy", layout, ASINS).name == "mine"
    with pytest.raises(UserError, match=r"'\.\./x' is no name"):
        feature_set.read(f"../x={tmp_path}/a=b.npy", layout, ASINS)


def test_what_is_neither_a_file_nor_a_set_names_the_sets(layout: Layout) -> None:
    with pytest.raises(UserError, match=r"shop \(there: beit3, minilm-cnn"):
        feature_set.read("beit4", layout, ASINS)


def test_equal_names_are_told_apart() -> None:
    sets = [feature_set.FeatureSet("a", "", VECTORS)] * 3
    assert [g.name for g in feature_set.distinct(sets)] == ["a", "a-2", "a-3"]


def test_it_is_known_whose_encoder_read_the_categories(layout: Layout, tmp_path: Path) -> None:
    def read(spec: str) -> bool | None:
        return feature_set.read(spec, layout, ASINS).read_categories

    for name, flags in (("text", True), ("image", False), ("odd", "yes")):
        pq.write_table(
            table("asin", ASINS).append_column("has_text", pa.array([flags] * 6)), tmp_path / f"{name}.parquet"
        )
    np.save(tmp_path / "x.npy", VECTORS)
    files = [str(tmp_path / name) for name in ("text.parquet", "image.parquet", "odd.parquet", "x.npy")]
    assert [read(spec) for spec in ("beit3", *files)] == [True, True, False, None, None]
    items = io.read_table(layout.items, schemas.ITEMS)
    io.write_table(items, layout.items, schemas.ITEMS, {"params": {"text": ["title"]}})
    assert [read(spec) for spec in ("beit3", *files)] == [False, None, False, None, None]


def test_compare_does_not_ask_for_a_category_that_was_read(layout: Layout, tmp_path: Path) -> None:
    sets = [
        feature_set.FeatureSet(name, "", np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32), read)
        for name, read in (("a", True), ("b", False), ("c", False))
    ]
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    data = Data(interactions, 40, [["x"], ["y"]] * 20, {g.name: g.read_categories for g in sets})
    judged = judge.judge(sets, asking.ask(data), [5, 20], 0, asking.withheld(data))
    reason = "the encoder read the categories in the text; items.text can leave them out"
    assert judged["probes"]["categories"]["a"] == {"skipped": reason}
    assert facts.remarks(judged) == [f"Category: Not shown for a: {reason}."]
    assert [(t["a"], t["b"]) for t in judged["paired"] if t["measure"] == "categories accuracy"] == [("b", "c")]


# --- geometry


def shape(x: np.ndarray) -> shapes.Shape:
    return shapes.shape(x, shapes.spectrum(x))


def cka(a: np.ndarray, b: np.ndarray) -> float:
    return shapes.linear_cka(a, b, shapes.spectrum(a), shapes.spectrum(b))


def test_a_rotation_and_a_scale_change_nothing_that_matters() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(80, 6)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    b = (3 * a @ rotation).astype(np.float32)
    assert cka(a, b) == pytest.approx(1, abs=1e-5)
    assert similarity.overlap(similarity.neighbours(a, 5), similarity.neighbours(b, 5)).mean() > 0.99
    assert shape(a).effective_rank == pytest.approx(shape(b).effective_rank, rel=1e-4)


def test_cka_is_its_definition_by_gram_matrices() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(30, 7)).astype(np.float32)
    centre = np.eye(30) - 1 / 30
    k, m = (centre @ (x @ x.T).astype(float) @ centre for x in (a, b))
    assert cka(a, b) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()), rel=1e-5)


def test_effective_rank_counts_directions() -> None:
    rng = np.random.default_rng(2)
    line = rng.normal(size=(500, 1)) * np.ones((1, 8))
    assert shape(line.astype(np.float32)).effective_rank == pytest.approx(1, abs=0.01)
    assert shape(rng.normal(size=(5000, 8)).astype(np.float32)).effective_rank == pytest.approx(8, abs=0.05)
    assert shape(np.ones((9, 3), np.float32)).effective_rank == 1


def test_mean_cosine_is_the_mean_over_all_pairs() -> None:
    x = np.random.default_rng(3).normal(size=(20, 3)).astype(np.float32) + 1
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert shape(x).mean_cosine == pytest.approx(cosine[~np.eye(20, dtype=bool)].mean(), abs=1e-5)
    assert shape(np.ones((5, 2), np.float32)).mean_cosine == pytest.approx(1, abs=1e-5)
    assert shape(np.r_[x, np.zeros((2, 3), np.float32)]).zero_rows == 2


@pytest.mark.parametrize("scores_held", [1, 100, 1 << 20])
def test_neighbours_are_the_sorted_cosines_and_ties_go_to_lower_ids(scores_held: int) -> None:
    x = np.random.default_rng(4).normal(size=(40, 5)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    expected = np.sort(np.argsort(-cosine, axis=1)[:, :6], axis=1)
    assert np.array_equal(similarity.neighbours(x, 6, scores_held=scores_held), expected)
    assert similarity.nearest(x, [7], 6)[7] == np.argsort(-cosine[7])[:6].tolist()
    assert similarity.neighbours(np.ones((5, 2), np.float32), 2, scores_held=scores_held).tolist()[:2] == [
        [1, 2],
        [0, 2],
    ]


def test_overlap_counts_common_neighbours() -> None:
    assert similarity.overlap(np.array([[1, 2], [0, 2]]), np.array([[2, 3], [4, 5]])).tolist() == [0.5, 0]


# --- tests of significance


def test_training_averages_users_over_seeds_before_the_test() -> None:
    recalls = {}
    for model in plans.MODELS:
        for seed, shift in ((0, 0.1), (1, -0.1)):
            recalls[plans.Compared(model, "a", seed)] = np.array([0.5 + shift, 0.7 - shift, 0.4])
            recalls[plans.Compared(model, "b", seed)] = np.full(3, 0.5)
    out = plans.summary(recalls, ["a", "b"])
    assert out["seeds"] == 2
    assert out["recall@20"]["alignrec"]["a"]["mean"] == pytest.approx(1.6 / 3)
    test = next(t for t in out["paired"] if t["measure"] == "alignrec recall@20")
    assert test["difference"] == pytest.approx(0.1 / 3)
    assert test["n"] == 3


def test_controls_are_of_the_same_shape_and_no_item_keeps_its_own_row() -> None:
    controls = judge.controls_of(VECTORS, seed=0)
    assert sorted(controls["shuffled"].tolist()) == VECTORS.tolist()
    assert not (controls["shuffled"] == VECTORS).all(axis=1).any()
    assert (controls["random"].shape, np.unique(controls["constant"]).tolist()) == (VECTORS.shape, [1.0])


# --- the command


def test_compare_writes_figures_and_a_page(layout: Layout, tmp_path: Path) -> None:
    np.save(tmp_path / "theirs.npy", VECTORS)
    specs = ["beit3", "minilm-cnn", str(tmp_path / "theirs.npy")]
    comparison = command.compare(layout, toy.PARAMS, specs, 0, tmp_path / "out")
    assert json.loads((tmp_path / "out/compare.json").read_text()) == json.loads(json.dumps(comparison))
    assert set(comparison["probes"]["zero_shot"]) >= {"beit3", "minilm-cnn", "theirs", "random", "shuffled", "constant"}
    assert [(p["a"], p["b"]) for p in comparison["pairs"]] == [
        ("beit3", "minilm-cnn"), ("beit3", "theirs"), ("minilm-cnn", "theirs"),
    ]  # fmt: skip
    html = (tmp_path / "out/index.html").read_text()
    assert "<script>alert" not in html
    assert html.count("<h3>") >= 8
    again = command.compare(layout, toy.PARAMS, specs, 0, tmp_path / "again")
    assert again == comparison
    assert (tmp_path / "again/index.html").read_text() == html


def test_compare_draws_as_the_stage_does_so_that_their_figures_are_equal(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, answers = [], asking.answers

    def seen(*arguments: Any) -> Any:
        seeds.append(arguments[3])
        return answers(*arguments)

    monkeypatch.setattr(asking, "answers", seen)
    with running("probe", "shop", toy.PARAMS, layout.root) as run:
        probe.main(run)
    command.compare(layout, toy.PARAMS, ["beit3"], 0, tmp_path / "out")
    assert len(seeds) == 4  # raw and processed, of both
    assert len(set(seeds)) == 1


def test_compare_of_one_set_with_itself_finds_no_difference(layout: Layout, tmp_path: Path) -> None:
    comparison = command.compare(layout, toy.PARAMS, ["beit3", "beit3"], 0, tmp_path / "out")
    assert list(comparison["sources"]) == ["beit3", "beit3-2"]
    assert comparison["pairs"][0]["overlap"] == 1
    assert all(t["difference"] == 0 and t["p"] == 1 for t in comparison["paired"])


@pytest.mark.usefixtures("one_process")
def test_compare_trains_on_request(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MODELS", ("vbpr",))
    fast = {"train": {"epochs": 2, "batch_size": 8, "dim": 4}, "graph": {"k": 3}}
    params = Params.model_validate({"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}, **fast})
    comparison = command.compare(layout, params, ["beit3", "random"], 1, tmp_path / "out")
    recall = comparison["training"]["recall@20"]
    assert set(recall) == {"vbpr"}
    assert all(0 <= v["mean"] <= 1 for by_set in recall.values() for v in by_set.values())
    assert len(comparison["training"]["paired"]) == 1


def test_the_command_line_shows_tables_and_one_line_for_a_mistake(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    done = alignrec("compare", "shop", "beit3", "random", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    np.save(tmp_path / "mine.npy", VECTORS)
    assert (
        "mine.npy, rows assumed to be in order of item_id"
        in alignrec("compare", "shop", "mine.npy", cwd=tmp_path).stdout
    )
    assert "rows assumed to be in order" in (tmp_path / "outputs/compare/shop/index.html").read_text()
    for text in ("Zero-shot", "Similarity", "linear CKA", "page: outputs/compare/shop/index.html"):
        assert text in done.stdout
    wrong = alignrec("compare", "shop", "beit4", cwd=tmp_path)
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("error: 'beit4' is neither a file nor an encoded feature set of shop")
    assert wrong.stderr.count("\n") == 1


def test_the_terminal_shows_no_control_characters() -> None:
    console = Console(width=40, record=True)
    console.print(drawn(Table("", "", ["a"], [["x\x1b[31mred"]])))
    text = console.export_text()
    assert "red" in text
    assert "\x1b" not in text


# --- releases


def published(root: Path, version: str = "0.1.0") -> Path:
    params = toy.PARAMS.model_copy(update={"publish": toy.PARAMS.publish.model_copy(update={"version": version})})
    with running("publish", "shop", params, root) as run:
        publish.main(run)
    return run.layout.release


@pytest.fixture
def older(layout: Layout, tmp_path: Path) -> Path:
    return shutil.copytree(published(layout.root), tmp_path / "older")


def test_equal_releases_need_no_new_version(layout: Layout, older: Path) -> None:
    diff = releases.diff(older, published(layout.root), 3)
    assert (diff["schema"], diff["rows"], diff["values"]) == ([], [], [])
    assert (diff["bump"], diff["version"]) == ("none", "0.1.0")
    assert diff["features"]["beit3"]["overlap"] == 1


def test_files_of_equal_hashes_are_not_read(layout: Layout, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = published(layout.root)
    reads: list[str] = []
    read_table = pq.read_table

    def counted(path: Path, *args: Any, **options: Any) -> pa.Table:
        reads.append(str(path))
        return read_table(path, *args, **options)

    monkeypatch.setattr(releases.pq, "read_table", counted)
    diff = releases.diff(older, newer, 3)
    assert reads == [str(older / "items.parquet")]
    assert [line.split(",")[0] for line in releases.lines(diff)] == [
        "the same: schema",
        "version: nothing changed: 0.1.0 -> 0.1.0; it calls itself 0.1.0",
    ]
    page = changes_html(older, newer, diff, layout.images, "sample")
    assert "beit3" in page
    assert "Neither is computed where the vectors are the same." in page
    toy.write_features(layout, "beit3", np.random.default_rng(9).normal(size=(6, 2)), ASINS)
    published(layout.root)
    reads.clear()
    diff = releases.diff(older, newer, 3)
    assert {Path(path).parent.name for path in reads} == {"older", "beit3"}
    assert [diff["features"][name]["bump"] for name in ("beit3", "minilm-cnn")] == ["major", "none"]


def test_equal_vectors_of_another_version_are_not_compared(
    layout: Layout, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = published(layout.root, "0.1.1")
    path = next(newer.glob("features/beit3/*.parquet"))
    pq.write_table(pq.read_table(path), path, compression="none")
    rewritten_with_digest(newer)
    monkeypatch.delattr(releases, "compared")
    diff = releases.diff(older, newer, 3)
    assert diff["features"]["beit3"] == diff["features"]["minilm-cnn"]
    assert (diff["bump"], diff["values"]) == ("none", [])


def test_a_release_that_says_what_a_verified_one_says_is_hashed_and_not_read(
    layout: Layout, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = published(layout.root)
    known = manifest.load(older)
    monkeypatch.setattr(manifest, "shape", None)  # which each table is asked for
    assert any("tables keep their schemas" in line for line in verify(newer, known=known))
    with pytest.raises(TypeError, match="not callable"):
        list(verify(newer))
    path = newer / "items.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"items.parquet: changed"):
        list(verify(newer, known=known))


def test_other_features_are_major_and_name_the_items(layout: Layout, older: Path) -> None:
    toy.write_features(layout, "beit3", np.random.default_rng(9).normal(size=(6, 2)), ASINS)
    newer = published(layout.root, "0.1.1")
    diff = releases.diff(older, newer, 3)
    assert diff["values"] == ["features/beit3/features-00000.parquet: changed", "graph/beit3/edges.parquet: changed"]
    assert (diff["bump"], diff["version"]) == ("major", "1.0.0")
    assert [diff["features"][name]["bump"] for name in ("beit3", "minilm-cnn")] == ["major", "none"]
    assert len(diff["features"]["beit3"]["most_changed"]) == 3
    assert {e["asin"] for e in diff["features"]["beit3"]["most_changed"]} <= set(ASINS)
    lines = list(releases.lines(diff))
    assert "version: a major change: 0.1.0 -> 1.0.0; it calls itself 0.1.1" in lines
    assert any(line.startswith("beit3: a major change: ") for line in lines)


def test_rounding_is_a_patch_and_a_rotation_is_not(layout: Layout, older: Path) -> None:
    x = io.matrix(io.read_features(layout.features("beit3"))["vector"])
    toy.write_features(layout, "beit3", x.astype(np.float16).astype(np.float64), ASINS)
    diff = releases.diff(older, published(layout.root, "0.1.1"), 3)
    assert (diff["bump"], diff["version"]) == ("patch", "0.1.1")
    toy.write_features(layout, "beit3", x[:, ::-1].astype(np.float64), ASINS)  # same neighbours, CKA 1
    diff = releases.diff(older, published(layout.root, "0.1.1"), 3)
    assert diff["features"]["beit3"]["cka"] == pytest.approx(1, abs=1e-5)
    assert (diff["bump"], diff["version"]) == ("minor", "0.2.0")


@pytest.mark.parametrize(
    ("overlap", "cka", "cosine", "bump"),
    [
        (0.3, 0.995, 0.995, "major"),  # a third of the neighbours: other features, whatever CKA says
        (0.95, 0.8, 0.995, "major"),
        (0.7, 0.995, 0.995, "minor"),
        (0.95, 0.95, 0.995, "minor"),
        (0.95, 0.995, 0.1, "minor"),
        (0.95, 0.995, None, "minor"),
        (0.95, 0.995, 0.995, "patch"),
    ],
)
def test_neighbours_cka_and_cosine_weigh_a_change(overlap: float, cka: float, cosine: float | None, bump: str) -> None:
    assert releases.weight({"overlap": overlap, "cka": cka, "cosine": cosine, "equal": False}) == bump


def test_releases_without_a_common_item_are_one_line(layout: Layout, tmp_path: Path) -> None:
    with running("publish", "shop", toy.PARAMS, layout.root) as run:
        publish.main(run)
    other = Path(shutil.copytree(layout.release, tmp_path / "other"))
    items = pq.read_table(other / "items.parquet")
    names = pa.array([f"B{i}" for i in range(toy.ITEMS)])
    pq.write_table(items.set_column(1, items.schema.field("asin"), names), other / "items.parquet")
    content = json.loads((other / "manifest.json").read_text())
    at = next(i for i, f in enumerate(content["files"]) if f["path"] == "items.parquet")
    content["files"][at] = manifest.describe(other, other / "items.parquet", "items").model_dump()
    (other / "manifest.json").write_text(json.dumps(manifest.with_digest(content)))
    with pytest.raises(UserError, match="have no item in common; are they releases of one dataset"):
        releases.diff(layout.release, other, 5)


def test_the_page_of_a_difference_shows_changed_items_before_and_after(
    layout: Layout, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "NEIGHBOURS", 2)  # of 5 others
    toy.write_features(layout, "beit3", np.random.default_rng(9).normal(size=(6, 2)), ASINS)
    newer = published(layout.root, "0.1.1")
    diff = releases.diff(older, newer, 3)
    page = changes_html(older, newer, diff, layout.images, "sample")
    assert "beit3 before (0.1.0)</th><th" in page
    assert "beit3 after (0.1.1)</th></tr>" in page
    assert "minilm-cnn before" not in page  # it did not change
    assert page.count('class="pic') > 3
    assert "No images" not in page
    assert "CC BY-SA" in page  # the attribution of the sample's images
    assert changes_html(older, newer, diff, layout.images, "sample") == page
    alone = changes_html(older, newer, diff, layout.root / "nowhere", "sample")
    assert 'class="pic s' not in alone
    assert "No images" in alone


def test_another_width_or_a_missing_set_is_major(layout: Layout, older: Path) -> None:
    toy.write_features(layout, "beit3", np.random.default_rng(9).normal(size=(6, 3)), ASINS)
    shutil.rmtree(layout.features("minilm-cnn"))
    diff = releases.diff(older, published(layout.root), 3)
    assert diff["schema"] == [
        "features/beit3: column vector was fixed_size_list<element: float not null>[2]",
        "features/minilm-cnn: gone",
        "graph/minilm-cnn/edges.parquet: gone",
    ]
    assert (diff["bump"], diff["version"]) == ("major", "1.0.0")


def rewritten_with_digest(release: Path) -> None:
    """Write the manifest with the hashes that the files have now."""
    made = manifest.load(release)
    files = [f.model_copy(update={"sha256": io.sha256(release / f.path)}) for f in made.files]
    manifest.write(release / manifest.NAME, made.model_copy(update={"files": files}))


def test_renumbered_items_are_minor_and_are_matched_by_asin(layout: Layout, older: Path) -> None:
    newer = shutil.copytree(older, older.parent / "newer")
    turned = list(range(6))[::-1]
    items = pq.read_table(newer / "items.parquet").take(turned)
    pq.write_table(items, newer / "items.parquet")
    for path in sorted(newer.glob("features/*/*.parquet")):
        pq.write_table(pq.read_table(path).take(turned), path)
    rewritten_with_digest(newer)
    diff = releases.diff(older, newer, 3)
    assert diff["rows"] == ["items are numbered in another order"]
    assert diff["bump"] == "minor"
    assert diff["features"]["beit3"]["overlap"] == 1


@pytest.mark.parametrize(
    ("bump", "version"), [("major", "2.0.0"), ("minor", "1.3.0"), ("patch", "1.2.4"), ("none", "1.2.3")]
)
def test_versions_are_semantic(bump: str, version: str) -> None:
    assert releases.bumped("1.2.3", bump) == version


def test_the_releases_of_these_tests_verify(older: Path) -> None:
    assert len(list(verify(older))) == 4
