"""The verdict of a comparison in words claims what all of its tests say, and no more."""

from typing import Any

import pytest

from pipeline.facts.comparison import RULE, sentences


def probed(probe: str, measure: str, verdict: str) -> dict[str, Any]:
    return {"probe": probe, "measure": measure, "a": "ours", "b": "theirs", "verdict": verdict}


def trained(model: str, difference: float, p: float) -> dict[str, Any]:
    return {"measure": f"{model} recall@20", "a": "ours", "b": "theirs", "difference": difference, "p_holm": p}


def comparison(verdicts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"pairs": [{"a": "ours", "b": "theirs"}], "verdicts": verdicts} | more


VERDICTS = [
    probed("zero_shot", "hit@10", "better"), probed("zero_shot", "hit@20", "better"),
    probed("item_cf", "hit@10", "better"), probed("item_cf", "hit@20", "undecided"),
    probed("content_knn", "recall@10", "worse"), probed("content_knn", "recall@20", "worse"),
]  # fmt: skip


def test_a_set_is_better_where_it_is_at_every_cutoff() -> None:
    said = "ours beats theirs in zero-shot and loses to theirs in content neighbours; not told apart in Item-CF."
    assert sentences(comparison(VERDICTS)) == [said, RULE]


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (0.001, "in zero-shot and under alignrec and loses to theirs under bm3; not told apart under vbpr."),
        (0.2, "in zero-shot and loses to theirs under bm3; not told apart under alignrec and under vbpr."),
    ],
    ids=["both", "one"],
)  # fmt: skip
def test_trained_sets_are_judged_by_model_under_every_protocol(also: float, said: str) -> None:
    training = {
        "seeds": 5,
        "paired": [trained("alignrec", 0.1, 0.001), trained("bm3", -0.1, 0.01), trained("vbpr", -0.1, 0.05)],
        "also": [{"paired": [trained("alignrec", 0.1, also)]}],
    }
    sentence, rule = sentences(comparison(VERDICTS[:2], training=training))
    assert (sentence, rule) == (f"ours beats theirs {said}", f"{RULE} Models were trained over 5 seeds.")


def test_one_set_has_no_verdict_and_sets_that_no_probe_asked_have_none_either() -> None:
    assert sentences({"pairs": [], "verdicts": []}) == []
    assert sentences(comparison([])) == ["No probe was asked of both ours and theirs.", RULE]
