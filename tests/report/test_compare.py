"""`alignrec compare` on third-party files and known geometry, and files whose rows are out of order."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec, run_stages
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.compared import ComparedSet, common_items, read_set
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.report import compare, similarity, verdict
from alignrec.pipeline.runtime.layout import Layout

ASINS = toy.ASINS
VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path / "outputs")


def table(ids: str, values: list[object], vectors: np.ndarray = VECTORS) -> pa.Table:
    return pa.table({ids: values, "vector": io.vectors(vectors)})


# --- third-party files


def read(layout: Layout, path: Path | str, asins: list[str] = ASINS, order: Path | None = None) -> ComparedSet:
    return read_set(str(path), layout, asins, order)


def test_what_is_odd_about_a_file_is_said_before_the_verdict(layout: Layout, tmp_path: Path) -> None:
    odd = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    odd[:, 1], odd[2], odd[4] = 7, 0, odd[3]
    odd[2, 1] = 7
    pq.write_table(table("asin", [*ASINS, "x", "y", "z", "w"][:9], odd[:9]), tmp_path / "a.parquet")
    assert read(layout, tmp_path / "a.parquet").oddities == [
        "1 of 4 columns are the same in all rows",
        "1 of 6 rows repeat the vector of another",
    ]
    odd[0] = 0
    values = [*ASINS[:5], "x", "y", "z", "w"]
    pq.write_table(table("asin", values, odd), tmp_path / "b.parquet")
    assert read(layout, tmp_path / "b.parquet").oddities == [
        "4 of 9 rows are of no item here; is it of this dataset?",
        "1 of 5 rows are zeros, and no vectors",
        "1 of 5 rows repeat the vector of another",
    ]
    assert read(layout, "beit3").oddities == ()
    comparison = compare.compare(layout, toy.PARAMS, ["beit3", str(tmp_path / "b.parquet")], tmp_path / "out")
    assert verdict.describe_doubts(comparison)[1] == "b: 1 of 5 rows are zeros, and no vectors."


def test_of_several_columns_of_vectors_one_is_named(layout: Layout, tmp_path: Path) -> None:
    both = {"asin": ASINS, "text": VECTORS.tolist(), "image": (VECTORS * 2).tolist()}
    pq.write_table(pa.table(both), tmp_path / "two.parquet")
    image = read(layout, f"{tmp_path}/two.parquet:image")
    assert image.name == "image"
    np.testing.assert_array_equal(image.vectors, VECTORS * 2)
    assert read(layout, f"mine={tmp_path}/two.parquet:text").name == "mine"
    for column, facts_of in (("", r"2 columns .*\(text, image\)"), (":title", "'title'.*text, image")):
        with pytest.raises(UserError, match=facts_of):
            read(layout, f"{tmp_path}/two.parquet{column}")


@pytest.mark.parametrize(("given", "ending"), [("biet3", "; did you mean 'beit3'?"), ("nowhere.npy", "; valid: ")])
def test_for_an_absent_set_a_similar_one_is_named(layout: Layout, given: str, ending: str) -> None:
    with pytest.raises(UserError) as caught:
        read(layout, given)
    assert str(caught.value).startswith(f"'{given}' is neither a file nor an encoded feature set of ")
    assert ending in str(caught.value)


@pytest.mark.parametrize(("ids", "last"), [("asin", "B5"), ("item_id", 6)])
def test_other_items_are_counted_and_absent_ones_left_out(
    layout: Layout, tmp_path: Path, ids: str, last: object
) -> None:
    values = [*(ASINS if ids == "asin" else range(6))[:5], last]
    pq.write_table(table(ids, values), tmp_path / "x.parquet")
    found = read(layout, tmp_path / "x.parquet")
    assert f"1 rows are of no item here, such as '{last}'; 1 items have no row" in found.source
    assert np.array_equal(found.vectors[:5], VECTORS[:5])
    assert found.has_row is not None
    assert found.has_row.tolist() == [True] * 5 + [False]
    assert common_items([found, replace(found, has_row=None)]).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="x, x: 1 items"):
        common_items([found, replace(found, has_row=np.arange(6) > 3)])


# --- geometry


def shape(x: np.ndarray) -> projections.Shape:
    return projections.measure_shape(x, projections.spectrum(x))


def test_cka_is_its_definition_by_gram_matrices() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(30, 7)).astype(np.float32)
    centre = np.eye(30) - 1 / 30
    k, m = (centre @ (x @ x.T).astype(float) @ centre for x in (a, b))
    cka = projections.linear_cka(a, b, projections.spectrum(a), projections.spectrum(b))
    assert cka == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()), rel=1e-5)


def test_effective_rank_counts_directions() -> None:
    rng = np.random.default_rng(2)
    line = rng.normal(size=(500, 1)) * np.ones((1, 8))
    assert shape(line.astype(np.float32)).effective_rank == pytest.approx(1, abs=0.01)
    assert shape(rng.normal(size=(5000, 8)).astype(np.float32)).effective_rank == pytest.approx(8, abs=0.05)
    assert shape(np.ones((9, 3), np.float32)).effective_rank == 1


@pytest.mark.parametrize("scores_held", [1, 100, 1 << 20])
def test_neighbours_are_the_sorted_cosines_and_ties_go_to_lower_ids(scores_held: int) -> None:
    x = np.random.default_rng(4).normal(size=(40, 5)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    expected = np.sort(np.argsort(-cosine, axis=1)[:, :6], axis=1)
    assert np.array_equal(similarity.find_neighbours(x, 6, scores_held=scores_held), expected)
    one = ComparedSet("a", "", x)
    assert similarity.changed_items(one, one, [(7, 0.5)])["near_b"][7] == np.argsort(-cosine[7])[:6].tolist()
    tied = similarity.find_neighbours(np.ones((5, 2), np.float32), 2, scores_held=scores_held)
    assert tied.tolist()[:2] == [[1, 2], [0, 2]]


# --- the command


def test_compare_writes_figures_and_a_page(layout: Layout, tmp_path: Path) -> None:
    np.save(tmp_path / "theirs.npy", VECTORS)
    specs = ["beit3", "minilm-cnn", str(tmp_path / "theirs.npy")]
    comparison = compare.compare(layout, toy.PARAMS, specs, tmp_path / "out")
    assert json.loads((tmp_path / "out/compare.json").read_text()) == json.loads(json.dumps(comparison))
    assert set(comparison["probes"]["zero_shot"]) >= {"beit3", "minilm-cnn", "theirs", "random", "shuffled", "constant"}
    assert [(p["a"], p["b"]) for p in comparison["pairs"]] == [
        ("beit3", "minilm-cnn"), ("beit3", "theirs"), ("minilm-cnn", "theirs"),
    ]  # fmt: skip
    html = (tmp_path / "out/index.html").read_text()
    assert "<script>alert" not in html
    assert html.count("<h3>") >= 8
    again = compare.compare(layout, toy.PARAMS, specs, tmp_path / "again")
    assert again == comparison
    assert (tmp_path / "again/index.html").read_text() == html


def test_compare_draws_as_the_stage_does_so_that_their_figures_are_equal(layout: Layout, tmp_path: Path) -> None:
    toy.run("probe", toy.PARAMS, layout.root)
    staged = io.read_json(layout.probes)
    comparison = compare.compare(layout, toy.PARAMS, ["beit3"], tmp_path / "out")
    asked = [name for name, figures in comparison["probes"].items() if "beit3" in figures]
    assert {name: staged[name]["beit3"] for name in asked} == {n: comparison["probes"][n]["beit3"] for n in asked}


# --- `alignrec compare` names third-party files by folder, and counts items that differ


def test_a_file_of_some_items_is_judged_as_if_there_were_no_others(tmp_path: Path) -> None:
    """A comparison of some items has the figures of a dataset with only those."""
    shop = tmp_path
    (shop / "params.yaml").write_text("datasets: [s]\nsources: {s: {kind: sample, users: 300, items: 200}}\n")
    run_stages("s", "download", "interactions", cwd=shop)
    asins = io.read_table(Layout(shop / "outputs", "s").item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    x, some = np.random.default_rng(0).standard_normal((len(asins), 6)), np.arange(0, len(asins), 2)
    for name, rows in (("whole", np.arange(len(asins))), ("part", some)):
        written = pa.table({"asin": [asins[i] for i in rows], "vector": io.vectors(x[rows])})
        pq.write_table(written, shop / f"{name}.parquet")
    done = alignrec("compare", "s", "whole.parquet", "part.parquet", "--to", "out", cwd=shop)
    assert done.exit_code == 0, done.output
    said = f"Compared on the {len(some)} of {len(asins)} items that every set has a row of."
    assert said in " ".join(done.output.split())
    # the verdict comes before the tables
    assert done.output.startswith("Use whole or part on s: no significant difference ")
    found = json.loads((shop / "out/compare.json").read_text())
    assert found["items"] == {"compared": len(some), "of": len(asins)}
    asked = [of for of in found["probes"].values() if "skipped" not in of]
    assert asked
    assert all(of["whole"] == of["part"] for of in asked)
    assert found["pairs"][0]["overlap"] == 1
    assert {e["item_id"] for e in found["pairs"][0]["most_changed"]} <= {*some.tolist()}


# --- rows out of order


ITEMS, WIDTH = 300, 24


def sets() -> dict[str, np.ndarray]:
    """Return feature sets of one catalogue: two encoders of the same content, and others."""
    rng = np.random.default_rng(3)
    kinds = rng.standard_normal((60, WIDTH))[rng.integers(0, 60, ITEMS)]
    seen = {name: kinds @ rng.standard_normal((WIDTH, WIDTH)) + rng.standard_normal((ITEMS, WIDTH)) for name in "ab"}
    elsewhere = rng.standard_normal((60, WIDTH))[rng.integers(0, 60, ITEMS)]
    made = seen | {
        "permuted": seen["b"][rng.permutation(ITEMS)],
        "random": rng.standard_normal((ITEMS, WIDTH)),
        "hardly alike": 4 * elsewhere + 1.3 * kinds + rng.standard_normal((ITEMS, WIDTH)),
    }
    made["half empty"] = seen["a"] * (rng.random((ITEMS, 1)) < 0.5)
    made["half empty, permuted"] = made["half empty"][rng.permutation(ITEMS)]
    return {name: vectors.astype(np.float32) for name, vectors in made.items()}


SETS = sets()


def doubted(*names: str, identified: tuple[str, ...] = ("a",), items: int = ITEMS) -> list[str]:
    """Return the sets whose rows seem out of order, of the first items."""
    compared = [ComparedSet(name, "", SETS[name][:items], identified=name in identified) for name in names]
    return [doubt["features"] for doubt in similarity.compare_sets(compared, 1)["order"]]


def test_shapes_have_six_decimal_places() -> None:
    found = similarity.compare_sets([ComparedSet(name, "", SETS[name]) for name in "ab"], 1)["sets"]
    exact = projections.measure_shape(SETS["a"], projections.spectrum(SETS["a"])).effective_rank
    assert found["a"]["effective_rank"] == round(exact, 6) != exact


@pytest.mark.parametrize("name", ["permuted", "half empty, permuted"])
def test_permuted_rows_are_named(name: str) -> None:
    assert doubted("a", "b", name) == [name]
    assert doubted("a", name) == [name]
    assert doubted("a", "b", name, identified=()) == [name]


@pytest.mark.parametrize("name", ["b", "hardly alike", "half empty"])
def test_sets_that_differ_are_not_named(name: str) -> None:
    assert doubted("a", "b", name) == []
    assert doubted("a", name) == []


def test_identifiers_controls_and_few_items_raise_no_doubt() -> None:
    assert doubted("a", "b", "permuted", identified=("a", "permuted")) == []
    assert doubted("random", "permuted", identified=("random",)) == []
    assert doubted("permuted") == []
    assert doubted("a", "permuted", items=12) == []
