"""Tables of rows whose figures are obvious, and the verdict."""

import dataclasses
import shutil
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import Figure, list_ablations, list_comparisons
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.report import figures, gallery, probes, results, sections, terminal, verdict
from alignrec.pipeline.report.figures import name_network, sample_network
from alignrec.pipeline.report.intervals import IntervalRow, interval_chart
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import format_figure


def test_the_best_figure_of_each_column_is_marked() -> None:
    figures = {"users": 5, "chance": {"hit@5": 0.1, "hit@10": 0.2}, "a": {"hit@5": 0.3, "hit@10": 0.3},
             "b": {"hit@5": 0.2, "hit@10": 0.4}}  # fmt: skip
    (table,) = probes.probe_tables({"zero_shot": figures})
    assert [r[0] for r in table.rows] == ["b", "a", "chance"]
    assert table.marks == {(1, 2): "best", (0, 3): "best"}


def test_semantic_ids_come_with_random_codes(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    toy.run("semantic_ids", toy.params(semantic_ids={"features": ["beit3"], "levels": 2, "codes": 2}), tmp_path)
    (table,) = results.semantic_id_tables(io.read_json(layout.code_quality))
    assert [row[0] for row in table.rows] == ["beit3", "beit3, random codes"]
    assert all(len(row) == len(table.head) and row[1].endswith("%") for row in table.rows)
    assert results.semantic_id_tables({}) == []


def test_leads_on_the_long_tail_have_intervals_and_marks_where_they_are_sure() -> None:
    sure = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.004}
    unsure = {"difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.2, "p_holm": 0.4}
    mean = {"k": 20, "seeds": 3, "n": 7, "mean": 0.3, "mean_low": 0.25, "mean_high": 0.35}
    runs = ("alignrec", "beit3", {}), ("bpr", "none", sure), ("alignrec", "tfidf", unsure), ("alignrec", "random", sure)
    rows = [
        {"dataset": "shop", "protocol": "mmrec", "fingerprint": "e" * 16, **mean, **test}
        | {"slice": name, "label": label, "model": model, "features": features}
        for name, label in (("popularity", "tail"), ("popularity", "head"), ("history", "3"))
        for model, features, test in runs
    ]
    by_popularity, by_history = results.lead_tables({"tail": pa.Table.from_pylist(rows, schemas.TAIL)})
    assert by_popularity.head == ["run", "tail", "head"]
    assert [row[0] for row in by_popularity.rows] == ["n", "BPR", "AlignRec on tfidf"]  # neither itself nor controls
    assert by_popularity.rows[0][1:] == ["7", "7"]
    assert by_popularity.rows[1][1] == "+0.1000 (+0.0500 .. +0.1500)"
    assert by_popularity.marks == {(1, 1): "better", (1, 2): "better"}
    assert by_history.heading == "AlignRec's lead by history"


# --- tables of the benchmark: pairs, masks, and ablations that repeat the full model


def test_models_stand_by_how_they_use_content_and_the_best_figure_is_still_marked(tmp_path: Path) -> None:
    (comparison,) = list_comparisons(io.read_table(toy.outputs(tmp_path).results, schemas.RESULTS))
    table = results.results_table(comparison)
    assert [row[:3] for row in table.rows] == [["ids", "lightgcn", "none"], ["staged", "alignrec", "beit3"]]
    assert table.head[table.texts :][:2] == ["seeds", "Recall@10"]  # figures, right-aligned
    assert table.marks[1, 5] == "best"
    assert table.rows[1][5].startswith("0.31")
    (ours,) = (row for row in comparison.rows if row.model == "alignrec")
    others = [dataclasses.replace(ours, model=model) for model in ("mine", "vbpr", "bm3", "freedom")]
    table = results.results_table(dataclasses.replace(comparison, rows=[ours, *others]))
    assert [row[0] for row in table.rows] == ["a: input", "b: over graphs", "c: in the loss", "staged", ""]


def test_rivals_are_sorted_by_recall_and_have_the_p_of_all_tests(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    (comparison,) = list_comparisons(io.read_table(layout.results, schemas.RESULTS))
    tests = io.read_table(layout.tests, schemas.TESTS)
    rows = tests.to_pylist()
    level = next(row for row in rows if row["model_b"] == "lightgcn" and row["metric"] == "recall")
    rows.append(level | {"model_b": "l3ae", "features_b": "beit3", "mean_b": 0.3, "difference": 0.01, "p_holm": 0.27})
    table = results.rival_table(comparison, pa.Table.from_pylist(rows, schemas.TESTS), "beit3")
    assert table is not None
    assert [row[:4] + row[5:] for row in table.rows] == [
        ["l3ae", "beit3", "0.3000", "+0.0100", "0.27"],
        ["lightgcn", "none", "0.2100", "+0.1000", "0.004"],
    ]  # without its ablations
    assert table.marks == {(1, 3): "better"}
    assert results.rival_table(comparison, tests, "linear") is None
    assert results.rival_table(comparison, None, "beit3") is None


def test_an_ablation_that_repeats_the_full_model_is_marked_and_explained(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    measured = io.read_table(layout.results, schemas.RESULTS).to_pylist()
    tests = io.read_table(layout.tests, schemas.TESTS)
    full = {(r["seed"], r["metric"], r["k"]): r["value"] for r in measured
            if (r["model"], r["ablation"]) == ("alignrec", "")}  # fmt: skip
    same = [r | {"value": full[r["seed"], r["metric"], r["k"]]} if r["ablation"] else r for r in measured]
    (comparison,) = list_ablations(pa.Table.from_pylist(same, schemas.RESULTS))
    table = results.ablation_table(comparison, tests)
    assert table.rows[1][4:] == ["none", "identical", ""]
    assert "Identical to the full model in every figure of every seed: no-cca." in table.note
    one = same.index(next(r for r in same if r["ablation"] and r["metric"] == "ndcg"))
    same[one] = same[one] | {"value": same[one]["value"] + 1e-9}  # one figure of one seed
    (comparison,) = list_ablations(pa.Table.from_pylist(same, schemas.RESULTS))
    assert results.ablation_table(comparison, tests).rows[1][4] == "-0.0500"


def test_the_change_by_an_ablation_is_its_test_turned_round(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    tests = io.read_table(layout.tests, schemas.TESTS)
    (comparison,) = list_ablations(io.read_table(layout.results, schemas.RESULTS))
    change, interval = results.ablation_table(comparison, tests).rows[1][4:6]
    (test,) = (t for t in tests.to_pylist() if t["ablation_b"] and t["metric"] == "recall")
    turned = [-test[name] for name in ("difference", "high", "low")]
    assert (change, interval) == (f"{turned[0]:+.4f}", f"{turned[1]:+.4f} .. {turned[2]:+.4f}")


def test_the_headline_of_a_probe_is_its_own_figure_where_it_was_measured() -> None:
    for measured, headline in ({"hit@20": 0.1, "hit@50": 0.2}, "hit@20"), ({"hit@5": 0.1, "hit@10": 0.2}, "hit@10"):
        figures = {"chance": measured | {f"{name}_se": 0.01 for name in measured}}
        shown = probes.ProbeFigures(PROBES["zero_shot"], {"raw": figures}, 9, "users", "", "")
        assert shown.figure == headline


def test_the_best_point_of_each_sweep_is_marked_at_its_figure() -> None:
    points = [("lr", 0.1, 0.2), ("lr", 0.2, 0.3), ("cca", 1.0, 0.5)]
    curves = [
        {"sweep": s, "key": f"train.{s}", "value": v, "recall@20": r, "sd": 0.0, "seeds": 2} for s, v, r in points
    ]
    (table,) = results.sweep_points(curves)
    assert set(table.marks) == {(1, 4), (2, 4)}


def test_an_interval_chart_has_a_line_at_zero() -> None:
    rows = [IntervalRow("a", [(-0.1, 0.1, 0.3)], ".1")]
    assert interval_chart("difference", rows).lines == [25.0]
    assert interval_chart("difference", rows, reference=0.1).lines == [25.0, 50.0]


# --- items of the page, and their neighbours in the graphs


def test_the_neighbours_are_the_graphs() -> None:
    edges = pa.table(
        {"item_id": [1, 1, 1, 0, 0], "neighbour_id": [1, 2, 0, 0, 2], "rank": [0, 1, 2, 0, 1], "cosine": [1.0] * 5}
    )
    assert gallery.nearest_neighbours(edges, 1) == {0: [2], 1: [2]}
    assert gallery.nearest_neighbours(edges, 5) == {0: [2], 1: [2, 0]}


def test_a_choice_takes_every_category_before_any_twice() -> None:
    chosen = gallery.choose_items(["a", "a", "a", "b", "c", "d"], {*range(5)}, 4, seed=1)
    assert {["a", "a", "a", "b", "c", "d"][i] for i in chosen[:3]} == {"a", "b", "c"}
    assert 5 not in chosen
    assert gallery.choose_items(["a"] * 9, {*range(9)}, 4, seed=1) == gallery.choose_items(
        ["a"] * 9, {*range(9)}, 4, seed=1
    )


# --- figures for DVC and git: headline figures and tables; those of other runs are kept


EMPTY = {"pretrain", "train", "mask", "curves", "heatmaps"}


def test_metrics_are_the_released_models_its_rivals_and_what_came_before(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    history = [{"epoch": 1, "mim_accuracy": 0.12345, "mlm_accuracy": None}]  # of a dataset without texts
    io.write_json(layout.history("pretrain"), history)
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("metrics")) == {
        "valid": 0.11, "recall@20": 0.31, "sd": 0.01, "ndcg@20": 0.31, "baseline": 0.21, "zero_shot": 0.4,
        "mim": 0.1235, "network": name_network(sample_network(layout)),
    }  # fmt: skip
    assert io.read_json(layout.figures("pretrain")) == history
    assert io.read_json(layout.figures("train")) == io.read_json(layout.history("train"))


def test_pretraining_is_claimed_only_above_chance() -> None:
    notes = {"mim_accuracy": 0.04, "mim_chance": 0.03, "mim_margin_se": 0.01, "stopped": "after pretrain.steps, 50"}
    learned = {"mlm_accuracy": 0.25, "mlm_chance": 0.125, "mlm_margin_se": 0.01}
    table = sections.pretraining_table(notes | learned)
    assert [*map(list, table.rows)] == [
        ["MIM", "0.040", "0.030", "at chance, not claimed"],
        ["MLM", "0.250", "0.125", "above chance"],
    ]
    assert table.note.endswith("Training ended: after pretrain.steps, 50.")
    unmeasured = sections.pretraining_table(notes | {"mlm_accuracy": None})
    assert [row[0] for row in unmeasured.rows] == ["MIM"]


def test_parts_that_did_not_run_are_empty_files_so_that_dvc_finds_every_plot(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("pretrain", "train", "probe", "benchmark", "study"):
        shutil.rmtree(layout.folder(stage))
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    assert {part: io.read_json(layout.figures(part)) for part in EMPTY} == {part: [] for part in EMPTY}
    assert io.read_json(layout.figures("metrics")) == {"network": name_network(sample_network(layout))}


def test_a_part_that_did_not_run_leaves_what_git_has_of_an_earlier_run(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    shutil.rmtree(layout.folder("study"))
    io.write_json(layout.figures("article-mask"), [{"note": "of its own run"}])
    io.write_json(layout.figures("article-ablation"), [{"note": "earlier"}])
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("article-mask")) == [{"note": "of its own run"}]
    (table,) = io.read_json(layout.figures("article-ablation"))
    assert table["head"][0] == "ablation"
    assert table["rows"]


def test_a_model_that_draws_nothing_has_no_deviation() -> None:
    same, other = Figure(0.25, 0.0, (0.25,) * 3), Figure(0.25, 0.00001, (0.25, 0.25, 0.25001))
    assert [format_figure(same), format_figure(other)] == ["0.2500", "0.2500 ± 0.0000"]


@pytest.mark.parametrize("separator", [" > ", "|", "/"])
def test_a_category_of_one_text_is_split_at_its_separator(separator: str) -> None:
    paths = [[f"Home{separator}Kitchen{separator}Pans"], [f"Toys{separator}Cars"], ["Garden"], []]
    assert gallery.split_categories(paths) == [["Home", "Kitchen", "Pans"], ["Toys", "Cars"], ["Garden"], []]


def test_categories_with_levels_or_without_a_common_separator_stay() -> None:
    for paths in ([["TV/Video", "Cables"], ["Sport/Play"]], [["TV/Video"], ["Toys"], ["Hats"]], [[], []], []):
        assert gallery.split_categories(paths) == paths


# --- in a terminal


def row(model: str, seed: int, value: float, **other: object) -> dict[str, object]:
    run = {"dataset": "shop", "model": model, "features": "none", "ablation": "", "seed": seed}
    how = {"protocol": "mmrec", "fingerprint": "1", "split": "test", "metric": "recall", "k": 20}
    return run | how | {"selected_by": "valid", "value": value} | other


def printed(*rows: dict[str, object], width: int = 100) -> list[str]:
    """Return the text of every table."""
    texts = []
    for table in terminal.result_tables(pa.Table.from_pylist(list(rows), schemas.RESULTS), "shop"):
        console = Console(width=width, file=StringIO())
        console.print(table)
        texts.append(console.file.getvalue())
    return texts


def test_means_over_seeds_best_first_and_nothing_that_test_selected() -> None:
    rows = row("bpr", 0, 0.1), row("bpr", 1, 0.2), row("lightgcn", 0, 0.3), row("bpr", 0, 0.9, selected_by="test")
    (text,) = printed(*rows)
    assert "0.1500 ± 0.0707" in text
    assert ".9" not in text
    assert text.index("lightgcn") < text.index("bpr")


def test_fingerprints_and_ablations_have_tables_of_their_own() -> None:
    one, other = printed(row("bpr", 0, 0.1), row("bpr", 0, 0.7, fingerprint="2"))  # both are called `mmrec`
    assert (".1000" in one, ".7000" in one, ".1000" in other, ".7000" in other) == (True, False, False, True)
    texts = printed(row("alignrec", 0, 0.3), row("alignrec", 0, 0.2, ablation="no-cca"), row("bpr", 0, 0.1),
                  row("alignrec", 0, 0.4, features="random"))  # fmt: skip
    assert "no-cca" not in texts[0]
    assert (".3000" in texts[1], "no-cca" in texts[1]) == (True, True)
    assert not any(other in texts[1] for other in ("bpr", "random"))


# --- the verdict states what the tests decided, and no more


PROTOCOL = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "f" * 16, "metric": "recall", "k": 20, "seeds": 3}
FIGURES = {"n": 2970, "mean_a": 0.2, "mean_b": 0.1, "low": 0.0, "high": 0.1, "p": 0.01}


def paired(*others: tuple[str, str, float, float], **changed: str) -> pa.Table:
    ours = {"model_a": "alignrec", "features_a": "beit3", "ablation_a": "", "ablation_b": ""}
    rows = [
        PROTOCOL | FIGURES | ours | changed
        | {"model_b": model, "features_b": features, "difference": difference, "p_holm": p}
        for model, features, difference, p in others
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.TESTS)


def by_probe(**outcomes: str) -> dict[str, list[dict[str, str]]]:
    rows = [
        {"probe": probe, "measure": f"hit@{k}", "a": "beit3", "b": b.replace("_", "-"),
         "verdict": word}
        for b, words in outcomes.items() for probe, word in zip(("zero_shot", "item_cf"), words.split(), strict=True)
        for k in (10, 20)
    ]  # fmt: skip
    return {"verdicts": rows}


def decided(released: str, *evidence: Any) -> dict[str, list[str]]:
    """Return the rows of the verdict by name, with its head under "head"."""
    (table,) = verdict.verdict_tables(released, *evidence)
    assert {table.rows[r][c].partition(" ")[0] == mark for (r, c), mark in table.marks.items()} == {True}
    return {"head": [*table.head[1:]]} | {row[0]: [*row[1:]] for row in table.rows}


def test_a_set_is_better_where_the_tests_say_so_and_not_elsewhere() -> None:
    tests = paired(
        ("alignrec", "minilm-cnn", 0.001, 1.0), ("alignrec", "tfidf", -0.01, 0.01), ("bpr", "none", 0.05, 0.01)
    )
    evidence = by_probe(minilm_cnn="better better", tfidf="undecided worse")
    assert decided("beit3", evidence, tests) == {
        "head": ["zero-shot", "Item-CF", "under AlignRec, Recall@20"],
        "minilm-cnn": ["better", "better", "level"],
        "tfidf": ["level", "worse", "worse"],
    }
    (table,) = verdict.verdict_tables("beit3", evidence, tests)
    assert "test Recall@20 of 2,970 users over 3 seeds, mmrec." in table.note


def said(measured: Any, tests: pa.Table | None, kind: str = "tabular", unread: Any = None) -> str:
    shop = {"layout": SimpleNamespace(dataset="shop"), "kind": kind, "released": "beit3"}
    outputs: Any = SimpleNamespace(**shop, probes=measured, tests=tests, unread=unread or {})
    return " ".join(verdict.advise(outputs))


def test_the_first_sentence_says_what_to_use() -> None:
    tests = paired(
        ("alignrec", "minilm-cnn", 0.001, 1.0), ("alignrec", "tfidf", 0.01, 0.01), ("bpr", "none", 0.05, 0.01)
    )
    better = by_probe(minilm_cnn="better better", tfidf="undecided undecided")
    assert said(better, tests) == (
        "Use beit3 on shop: better than the other 2 feature sets in 3 of 6 comparisons, never significantly worse."
    )
    mixed = by_probe(tfidf="better worse", random="better better", cnn="undecided undecided")
    assert said(mixed, None, kind="sample") == (
        "Use beit3 on shop (synthetic users): better than the other 2 feature sets in 1 of 4 comparisons, worse in 1. "
        "beit3 is above the control random in 2 of 2 comparisons."
    )
    level = by_probe(tfidf="undecided undecided")
    assert said(level, None) == "Use beit3 on shop: no significant difference in any comparison."
    assert said(None, None) == ""


@pytest.mark.parametrize(
    ("linear", "tfidf", "expected"),
    [
        ("worse undecided", "worse worse",
         "Use tfidf (train.features) on shop, not beit3: it is significantly better in 2 of 2 comparisons."),
        ("worse worse", "worse worse",
         "Use linear (train.features) on shop, not beit3: it is significantly better in 2 of 2 comparisons."),
        ("worse better", "worse better", "Use beit3 on shop: "),
        ("undecided undecided", "better better",
         "Use linear (train.features) on shop: it needs no training, and beit3 is significantly better in none of 2 "
         "comparisons with it."),
    ],
)  # fmt: skip
def test_the_set_that_beats_the_released_one_or_needs_no_training_is_to_be_used(
    linear: str, tfidf: str, expected: str
) -> None:
    assert said(by_probe(linear=linear, tfidf=tfidf), None).startswith(expected)


def test_a_set_that_no_test_puts_above_a_control_is_not_to_be_used() -> None:
    before = by_probe(tfidf="better better", beit3_untrained="undecided undecided")
    assert said(before, None).startswith("Use beit3 on shop: better than tfidf in 2 of 2 comparisons")
    evidence = by_probe(tfidf="better better", shuffled="undecided undecided", random="better undecided")
    assert said(evidence, None).startswith(
        "Do not use beit3 on shop yet: no comparison puts it above the control shuffled. "
        "beit3 is above the controls shuffled, random in 1 of 4 comparisons."
    )


def test_too_few_users_are_said() -> None:
    for outcomes, users, expected in (
        ("undecided undecided", 300, True), ("undecided undecided", 3000, False), ("better undecided", 300, False)
    ):  # fmt: skip
        evidence = by_probe(linear=outcomes) | {"zero_shot": {"users": users}}
        assert ("300 users are too few to tell feature sets apart." in said(evidence, None)) == expected


def test_controls_stand_below_and_other_forms_of_the_set_nowhere() -> None:
    every = by_probe(
        random="better undecided", beit3_untrained="better better", beit3_raw="worse worse", cnn="worse worse"
    )
    assert [*decided("beit3", every, None)] == ["head", "cnn", "random, a control", "beit3-untrained, a control"]
    assert verdict.verdict_tables("beit3", by_probe(beit3_raw="worse worse"), None) == []


@pytest.mark.parametrize("ablated", [{"ablation_b": "no-cca"}, {"metric": "ndcg"}, {"features_a": "tfidf"}])
def test_other_tests_say_nothing_of_the_features(ablated: dict[str, str]) -> None:
    assert verdict.verdict_tables("beit3", None, paired(("alignrec", "beit3", 0.1, 0.01), **ablated)) == []


def probed(probe: str, measure: str, verdict: str) -> dict[str, Any]:
    return {"probe": probe, "measure": measure, "a": "ours", "b": "theirs", "verdict": verdict}


PROBED = [
    probed("zero_shot", "hit@10", "better"), probed("zero_shot", "hit@20", "better"),
    probed("item_cf", "hit@10", "better"), probed("item_cf", "hit@20", "undecided"),
    probed("content_knn", "recall@10", "worse"), probed("content_knn", "recall@20", "worse"),
]  # fmt: skip


def compared(**more: Any) -> dict[str, Any]:
    sets = {"dataset": "shop", "sets": {"ours": {}, "theirs": {}}, "pairs": [{"a": "ours", "b": "theirs"}]}
    return sets | {"verdicts": PROBED, "paired": [], "probes": {}, "processed": {}} | more


def pair(found: dict[str, Any]) -> dict[str, str]:
    """Return place -> outcome of a comparison's only pair."""
    (table,) = verdict.pair_verdicts(found)
    assert table.rows[0][:2] == ["ours", "theirs"]
    return dict(zip(table.head[2:], table.rows[0][2:], strict=True))


def test_compared_sets_are_judged_by_probe() -> None:
    found = compared()
    assert pair(found) == {"zero-shot": "better", "Item-CF": "level", "content neighbours": "worse"}
    assert verdict.advise_comparison(found) == [
        "Use ours or theirs on shop: ours is better than theirs in 1 of 3 comparisons, worse in 1; "
        "theirs is better than ours in 1 of 3 comparisons, worse in 1."
    ]


def test_of_compared_sets_the_one_with_the_most_wins_is_to_be_used() -> None:
    wins = [row for row in PROBED if row["probe"] != "zero_shot"]
    figures = {name: {"hit@20": value} for name, value in {"theirs": 0.3, "ours": 0.2, "shuffled": 0.01}.items()}
    doubt = {"features": "ours", "neighbours": 10, "overlap": 0.03, "chance": 0.03}
    found = compared(verdicts=wins, probes={"zero_shot": figures}, processed={}, order=[doubt])
    assert verdict.advise_comparison(found) == [
        "Use theirs on shop: better than ours in 1 of 2 comparisons, never significantly worse.",
        "The zero-shot hit@20 of theirs is 0.300, that of the control shuffled 0.010.",
        "First check the order of rows in ours: it looks wrong.",
    ]
    level = [row for row in PROBED if row["probe"] == "item_cf"]
    (sentence,) = verdict.advise_comparison(compared(verdicts=level))
    assert sentence == "Use ours or theirs on shop: no significant difference in any comparison."


def test_there_is_no_verdict_without_a_second_set_and_rows_out_of_order_are_remarked() -> None:
    alone = {"pairs": [], "verdicts": [], "sets": {"ours": {}}}
    assert (verdict.pair_verdicts(alone), verdict.advise_comparison(alone)) == ([], [])
    doubt = {"features": "theirs", "neighbours": 10, "overlap": 0.034, "chance": 0.0334}
    (remark,) = verdict.describe_doubts(compared(order=[doubt], processed={}))
    assert remark.startswith("theirs: the order of its rows looks wrong")
    assert "3.4% of 10 neighbours with any other set, which is chance (3.3%)" in remark
