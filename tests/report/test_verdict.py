"""The verdict states what the tests decided, and no more."""

from typing import Any

import pyarrow as pa
import pytest

from alignrec import schemas
from alignrec.pipeline.report import verdict

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


def probes(**outcomes: str) -> dict[str, list[dict[str, str]]]:
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
    evidence = probes(minilm_cnn="better better", tfidf="undecided worse")
    assert decided("beit3", evidence, tests) == {
        "head": ["zero-shot", "Item-CF", "under AlignRec, Recall@20"],
        "minilm-cnn": ["better", "better", "level"],
        "tfidf": ["level", "worse", "worse"],
    }
    (table,) = verdict.verdict_tables("beit3", evidence, tests)
    assert "test Recall@20 of 2,970 users over 3 seeds, mmrec." in table.note
    assert verdict.verdict_headline("shop", "tabular", "beit3", evidence, tests) == (
        "On shop, beit3 is better in 2, level in 2 and worse in 2 of 6 comparisons with 2 other feature sets; "
        "AlignRec on beit3 is better in 1, level in 0 and worse in 0 of 1 comparisons with other models."
    )


def test_linear_is_advised_where_the_trained_set_is_significantly_worse() -> None:
    advice = "It is significantly worse than linear: release linear (train.features)."
    for outcomes, advised in {"worse undecided": True, "undecided undecided": False, "worse better": False}.items():
        said = verdict.verdict_headline("shop", "tabular", "beit3", probes(linear=outcomes, tfidf="worse worse"), None)
        assert said.endswith(advice) == advised


def test_too_few_users_are_said_with_what_to_use() -> None:
    advice = "are too few to tell feature sets apart: release linear (train.features), which needs no training."
    for outcomes, users, advised in (
        ("undecided undecided", 300, True), ("undecided undecided", 3000, False), ("better undecided", 300, False)
    ):  # fmt: skip
        evidence = probes(linear=outcomes) | {"zero_shot": {"users": users}}
        said = verdict.verdict_headline("shop", "tabular", "beit3", evidence, None)
        assert said.endswith(f"300 users {advice}") == advised


def test_controls_stand_below_and_other_forms_of_the_set_nowhere() -> None:
    every = probes(
        random="better undecided", beit3_untrained="better better", beit3_raw="worse worse", cnn="worse worse"
    )
    assert [*decided("beit3", every, None)] == ["head", "cnn", "random, a control", "beit3-untrained, a control"]
    assert verdict.verdict_tables("beit3", probes(beit3_raw="worse worse"), None) == []


@pytest.mark.parametrize("ablated", [{"ablation_b": "no-cca"}, {"metric": "ndcg"}, {"features_a": "tfidf"}])
def test_other_tests_say_nothing_of_the_features(ablated: dict[str, str]) -> None:
    assert verdict.verdict_tables("beit3", None, paired(("alignrec", "beit3", 0.1, 0.01), **ablated)) == []


def probed(probe: str, measure: str, verdict: str) -> dict[str, Any]:
    return {"probe": probe, "measure": measure, "a": "ours", "b": "theirs", "verdict": verdict}


def trained(model: str, difference: float, p: float) -> dict[str, Any]:
    return {"measure": f"{model} recall@20", "a": "ours", "b": "theirs", "difference": difference, "p_holm": p}


PROBED = [
    probed("zero_shot", "hit@10", "better"), probed("zero_shot", "hit@20", "better"),
    probed("item_cf", "hit@10", "better"), probed("item_cf", "hit@20", "undecided"),
    probed("content_knn", "recall@10", "worse"), probed("content_knn", "recall@20", "worse"),
]  # fmt: skip


def compared(**more: Any) -> dict[str, Any]:
    sets = {"dataset": "shop", "sets": {"ours": {}, "theirs": {}}, "pairs": [{"a": "ours", "b": "theirs"}]}
    return sets | {"verdicts": PROBED, "paired": [], "probes": {}} | more


def pair(found: dict[str, Any]) -> dict[str, str]:
    """Return place -> outcome of a comparison's only pair."""
    (table,) = verdict.pair_verdicts(found)
    assert table.rows[0][:2] == ["ours", "theirs"]
    return dict(zip(table.head[2:], table.rows[0][2:], strict=True))


@pytest.mark.parametrize(("also", "outcome"), [(0.001, "better"), (0.2, "level")], ids=["both", "one"])
def test_compared_sets_are_judged_by_probe_and_by_model_under_every_protocol(also: float, outcome: str) -> None:
    training = {
        "seeds": 5,
        "paired": [trained("alignrec", 0.1, 0.001), trained("bm3", -0.1, 0.01), trained("vbpr", -0.1, 0.05)],
        "also": [{"paired": [trained("alignrec", 0.1, also)]}],
    }
    found = compared(training=training)
    assert pair(found) == {
        "zero-shot": "better", "Item-CF": "level", "content neighbours": "worse", "under alignrec": outcome,
        "under bm3": "worse", "under vbpr": "level",
    }  # fmt: skip
    assert "Models were trained over 5 seeds." in verdict.pair_verdicts(found)[0].note
    assert verdict.headline_sentence(found).endswith("of 6 comparisons with 1 other feature set.")


def test_there_is_no_verdict_without_a_second_set_and_on_rows_that_look_out_of_order() -> None:
    alone = {"pairs": [], "verdicts": [], "sets": {"ours": {}}}
    assert (verdict.pair_verdicts(alone), verdict.headline_sentence(alone)) == ([], "")
    doubted = compared(order=[{"features": "theirs"}])
    assert (pair(doubted), verdict.headline_sentence(doubted)) == ({}, "")
    assert "No verdict on theirs" in verdict.pair_verdicts(doubted)[0].note
