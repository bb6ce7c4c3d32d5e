"""The verdict of a comparison claims what all of its tests say, and no more."""

from typing import Any

import pytest

from pipeline.report.comparison import headline, verdicts


def probed(probe: str, measure: str, verdict: str) -> dict[str, Any]:
    return {"probe": probe, "measure": measure, "a": "ours", "b": "theirs", "verdict": verdict}


def trained(model: str, difference: float, p: float) -> dict[str, Any]:
    named = {"measure": f"{model} recall@20", "a": "ours", "b": "theirs"}
    return named | {"difference": difference, "p_holm": p, "n": 300, "low": difference - 0.1, "high": difference + 0.1}


def comparison(verdicts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return (
        {"dataset": "shop", "sets": {"ours": {}, "theirs": {}}}
        | {"pairs": [{"a": "ours", "b": "theirs"}], "verdicts": verdicts, "paired": [], "probes": {}}
        | more
    )


VERDICTS = [
    probed("zero_shot", "hit@10", "better"), probed("zero_shot", "hit@20", "better"),
    probed("item_cf", "hit@10", "better"), probed("item_cf", "hit@20", "undecided"),
    probed("content_knn", "recall@10", "worse"), probed("content_knn", "recall@20", "worse"),
]  # fmt: skip


def decided(found: dict[str, Any]) -> dict[str, str]:
    """Return place -> what the verdict says of the one pair."""
    (table,) = verdicts(found)
    assert table.rows[0][:2] == ["ours", "theirs"]
    return dict(zip(table.head[2:], table.rows[0][2:], strict=True))


def test_a_set_is_better_where_it_is_at_every_cutoff() -> None:
    found = comparison(VERDICTS)
    assert decided(found) == {"zero-shot": "better", "Item-CF": "level", "content neighbours": "worse"}
    assert headline(found) == "On shop, ours features beat and are behind theirs in 1 of 3 probes."


@pytest.mark.parametrize(
    ("also", "outcome", "said"),
    [(0.001, "better", "under AlignRec they beat theirs"), (0.2, "level", "under AlignRec they are level with theirs")],
    ids=["both", "one"],
)  # fmt: skip
def test_trained_sets_are_judged_by_model_under_every_protocol(also: float, outcome: str, said: str) -> None:
    training = {
        "seeds": 5,
        "paired": [trained("alignrec", 0.1, 0.001), trained("bm3", -0.1, 0.01), trained("vbpr", -0.1, 0.05)],
        "also": [{"paired": [trained("alignrec", 0.1, also)]}],
    }
    found = comparison(VERDICTS[:2], training=training)
    assert decided(found) == {
        "zero-shot": "better", "under alignrec": outcome, "under bm3": "worse", "under vbpr": "level"
    }  # fmt: skip
    assert "Models were trained over 5 seeds." in verdicts(found)[0].note
    assert headline(found) == (
        f"On shop, ours features beat theirs in 1 of 1 probes; {said}; under BM3 they are behind theirs; under VBPR "
        "they are level with theirs."
    )


@pytest.mark.parametrize(
    ("n", "half", "said"),
    [
        (14, 0.25, " +0.357 (n 14; 20 decide)"),
        (299, 0.25, " +0.357 (n 299; 426 decide)"),
        (14, 0.1, " +0.357 (n 14)"),  # enough for this test, and not for all that must agree
        (300, 0.25, ""),
    ],
)
def test_where_users_are_few_the_difference_is_shown_and_how_many_would_decide(n: int, half: float, said: str) -> None:
    rows = [probed("zero_shot", f"hit@{k}", "undecided") for k in (10, 20)]
    test = {"measure": "zero_shot hit@10", "a": "ours", "b": "theirs", "n": n, "difference": 0.357}
    test |= {"low": 0.357 - half, "high": 0.357 + half}
    found = comparison(rows, paired=[test], probes={"zero_shot": {"users": n}})
    assert decided(found) == {"zero-shot": f"level{said}"}


def test_one_set_has_no_verdict_and_sets_that_no_probe_asked_have_none_either() -> None:
    alone = {"pairs": [], "verdicts": [], "sets": {"ours": {}}}
    assert (verdicts(alone), headline(alone)) == ([], "")
    assert (decided(comparison([])), headline(comparison([]))) == ({}, "")


def test_there_is_no_verdict_on_rows_that_look_out_of_order() -> None:
    found = comparison(VERDICTS, order=[{"features": "theirs"}])
    assert (decided(found), headline(found)) == (dict.fromkeys(decided(found), ""), "")
    assert "No verdict on theirs" in verdicts(found)[0].note
