"""Semantic IDs side by side: feature sets that are coded here, third-party files, and refused files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from commands import alignrec

from pipeline import io
from pipeline.compare import codes, codes_file
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.probe import sampled
from pipeline.report import codes as facts

ASINS = toy.ASINS
CODES = [[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], None]
PARAMS = toy.params(semantic_ids={"levels": 2, "codes": 2})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path / "outputs")


def written(path: Path, values: list[Any] = CODES, **columns: Any) -> str:
    """Write a file of codes, its rows backwards; return its path."""
    kind = pa.list_(pa.int64()) if all(v is None or isinstance(v, list) for v in values) else None
    table = pa.table({"asin": ASINS, "codes": pa.array(values, kind), **columns})
    pq.write_table(table.take(list(range(len(values)))[::-1]), path)
    return str(path)


def compared(layout: Layout, specs: list[str], *methods: str, seeds: int = 1) -> dict[str, Any]:
    return codes.compare(layout, PARAMS, specs, methods, seeds, layout.root / "compared")


def test_a_file_is_judged_as_it_is_whatever_the_order_of_its_rows(layout: Layout, tmp_path: Path) -> None:
    given = codes_file.read(written(tmp_path / "theirs.parquet"), ASINS)
    assert given.codes.rows.tolist() == [0, 1, 2, 3, 4]
    assert given.codes.codes.tolist() == CODES[:5]
    assert given.codes.k == 2
    suffix = pa.array([0, 1, 0, 0, 0, None], pa.int8())
    distinct = codes_file.read(written(tmp_path / "s.parquet", suffix=suffix), ASINS).codes.suffix
    assert distinct is not None
    assert distinct.tolist() == [0, 1, 0, 0, 0]
    (row,) = compared(layout, [f"mine={tmp_path / 'theirs.parquet'}"])["codes"]
    assert (row["features"], row["method"]) == ("mine", "as it is")
    assert {**row["quality"]["collisions"], "before": 0.4, "after": 0.4} == row["quality"]["collisions"]
    assert row["quality"]["without_content"] == 1
    assert row["quality"]["reconstruction"]["skipped"] == "no codebooks"


def test_feature_sets_are_coded_beside_random_codes_and_files_have_their_neighbours(
    layout: Layout, tmp_path: Path
) -> None:
    np.save(tmp_path / "own.npy", np.arange(12, dtype=np.float32).reshape(6, 2))
    specs = ["beit3", str(tmp_path / "own.npy"), written(tmp_path / "theirs.parquet")]
    comparison = compared(layout, specs, "residual-kmeans")
    assert [(row["features"], row["method"]) for row in comparison["codes"]] == [
        ("beit3", "residual-kmeans"), ("beit3", "random"), ("own", "residual-kmeans"), ("own", "random"),
        ("theirs", "as it is"),
    ]  # fmt: skip
    assert comparison["neighbours_of"] == "beit3"
    assert comparison["codes"][-1]["quality"]["prefixes"][0]["neighbours"] is not None
    assert "beit3" in facts.remarks(comparison)[0]
    page = (layout.root / "compared" / "index.html").read_text()
    assert "What coding costs" in page
    assert io.read_json(layout.root / "compared" / "compare.json") == comparison
    assert compared(layout, specs, "residual-kmeans") == comparison


def test_neighbours_in_a_large_catalogue_are_those_of_some_items(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    (every,) = codes.sample_edges(vectors)
    monkeypatch.setattr(sampled, "COSINES", 7 * len(vectors))
    monkeypatch.setattr(sampled, "FEWEST", 1)
    (some,) = codes.sample_edges(vectors)
    assert len(np.unique(some[0])) == 7
    assert {*zip(*some, strict=True)} < {*zip(*every, strict=True)}


def test_several_codebooks_give_mean_and_sd_and_a_file_has_none(layout: Layout, tmp_path: Path) -> None:
    specs = ["beit3", written(tmp_path / "theirs.parquet")]
    comparison = compared(layout, specs, "residual-kmeans", seeds=3)
    by = [(row["method"], row["seed"]) for row in comparison["codes"]]
    assert by == [*(("residual-kmeans", n) for n in range(3)), *(("random", n) for n in range(3)), ("as it is", 0)]
    headline, cost, over = facts.tables(facts.compared(comparison))
    assert [row[0] for row in headline.rows] == ["beit3 · residual-kmeans", "beit3 · random", "theirs · as it is"]
    assert [row[0] for row in cost.rows] == ["beit3 · residual-kmeans"] * 2  # of the first seed only
    assert [row[:2] for row in over.rows] == [["beit3 · residual-kmeans", "3"], ["beit3 · random", "3"]]
    collide = [row["quality"]["collisions"]["before"] for row in comparison["codes"] if row["method"] == "random"]
    assert over.rows[1][2] == f"{np.mean(collide):.3f} ± {np.std(collide, ddof=1):.3f}"
    assert over.rows[1][-1] == ""  # random codes reconstruct nothing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 0]] * 5 + [[0]], "lengths 1, 2"),
        ([[0, -1]] * 6, "65,535"),
        ([[0, 1 << 40]] * 6, "65,535"),
        ([[0, None]] * 6, "null"),
        ([[]] * 6, "lengths 0; expected one, 1 .. 16"),
        ([[0] * 17] * 6, "lengths 17"),
        ([None] * 6, "lengths none"),
        (["0-1"] * 6, "string"),
    ],
)
def test_misshapen_codes_are_one_line(tmp_path: Path, values: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        codes_file.read(written(tmp_path / "bad.parquet", values), ASINS)
    assert "\n" not in str(refused.value)
    assert "bad.parquet" in str(refused.value)


def test_other_items_and_damaged_files_are_one_line(layout: Layout, tmp_path: Path) -> None:
    pq.write_table(pa.table({"asin": ASINS[:5], "codes": [[0]] * 5}), tmp_path / "few.parquet")
    with pytest.raises(UserError, match="no row for item 5"):
        codes_file.read(str(tmp_path / "few.parquet"), ASINS)
    with pytest.raises(UserError, match="column 'suffix' must be"):
        codes_file.read(written(tmp_path / "s.parquet", suffix=pa.array([None, 1, 0, 0, 0, 0], pa.int8())), ASINS)
    whole = Path(written(tmp_path / "whole.parquet")).read_bytes()
    for n in range(4, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "cut.parquet").write_bytes(whole[:n])
        with pytest.raises(UserError) as refused:
            compared(layout, ["beit3", str(tmp_path / "cut.parquet")], "residual-kmeans")
        assert "\n" not in str(refused.value)


def test_features_need_a_method_and_a_misspelt_one_is_named(layout: Layout, tmp_path: Path) -> None:
    theirs = written(tmp_path / "theirs.parquet")
    with pytest.raises(UserError, match="'beit3' holds features"):
        compared(layout, ["beit3", theirs])
    with pytest.raises(UserError, match=r"'--codes': .*'residual-kmean'.*'residual-kmeans'"):
        compared(layout, ["beit3"], "residual-kmean")
    np.save(tmp_path / "nothing.npy", np.zeros((6, 2), np.float32))
    with pytest.raises(UserError, match="nothing: "):
        compared(layout, [str(tmp_path / "nothing.npy")], "residual-kmeans")


def test_the_command_prints_tables_and_refuses_to_train_codes(layout: Layout, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\nsemantic_ids: {levels: 2, codes: 2}\n")
    command = ["compare", "shop", written(tmp_path / "theirs.parquet"), "beit3", "--codes", "residual-kmeans"]
    command += ["--params", params, "--root", layout.root, "--to", tmp_path, "--seeds", "2"]
    done = alignrec(*command, cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    for text in ("What coding costs", "Over seeds", "files of codes are judged by those of beit3"):
        assert text in done.stdout
    refused = alignrec(*command, "--train", cwd=tmp_path)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "--train" in refused.stderr
