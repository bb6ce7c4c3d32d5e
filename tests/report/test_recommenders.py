"""Tables of the benchmark: pairs, masks, and ablations that repeat the full model."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import list_ablations, list_comparisons
from alignrec.pipeline.report import recommenders


def test_models_stand_by_how_they_use_content_and_the_best_figure_is_still_marked(tmp_path: Path) -> None:
    (comparison,) = list_comparisons(io.read_table(toy.outputs(tmp_path).results, schemas.RESULTS))
    table = recommenders.results_table(comparison)
    assert [row[:3] for row in table.rows] == [["ids", "lightgcn", "none"], ["staged", "alignrec", "beit3"]]
    assert table.marks[1, 5] == "best"
    assert table.rows[1][5].startswith("0.31")
    (ours,) = (row for row in comparison.rows if row.model == "alignrec")
    others = [dataclasses.replace(ours, model=model) for model in ("mine", "vbpr", "bm3", "freedom")]
    table = recommenders.results_table(dataclasses.replace(comparison, rows=[ours, *others]))
    assert [row[0] for row in table.rows] == ["a: input", "b: over graphs", "c: in the loss", "staged", ""]


def test_an_ablation_that_repeats_the_full_model_is_marked_and_explained(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    results = io.read_table(layout.results, schemas.RESULTS).to_pylist()
    tests = io.read_table(layout.tests, schemas.TESTS)
    full = {(r["seed"], r["metric"], r["k"]): r["value"] for r in results
            if (r["model"], r["ablation"]) == ("alignrec", "")}  # fmt: skip
    same = [r | {"value": full[r["seed"], r["metric"], r["k"]]} if r["ablation"] else r for r in results]
    (comparison,) = list_ablations(pa.Table.from_pylist(same, schemas.RESULTS))
    table = recommenders.ablation_table([*recommenders.ablated_rows(comparison, tests)])
    assert table.rows[1][4:] == ["none", "identical", ""]
    assert "Identical to the full model in every figure of every seed: no-cca." in table.note
    one = same.index(next(r for r in same if r["ablation"] and r["metric"] == "ndcg"))
    same[one] = same[one] | {"value": same[one]["value"] + 1e-9}  # one figure of one seed
    (comparison,) = list_ablations(pa.Table.from_pylist(same, schemas.RESULTS))
    assert recommenders.ablation_table([*recommenders.ablated_rows(comparison, tests)]).rows[1][4] == "-0.0500"
