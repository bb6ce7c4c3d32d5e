"""The verdict claims what the tests decided, and no more."""

from typing import Any

import pyarrow as pa
import pytest
from verdicts import paired, probes

from pipeline.report import verdict
from pipeline.report.words import title


def decided(released: str, *evidence: Any) -> dict[str, list[str]]:
    """Return the rows of the verdict by their names, with its head under "head"."""
    (table,) = verdict.tables(released, *evidence)
    assert {table.rows[r][c].partition(" ")[0] == mark for (r, c), mark in table.marks.items()} == {True}
    return {"head": [*table.head[1:]]} | {row[0]: [*row[1:]] for row in table.rows}


def test_a_set_is_better_where_the_tests_say_so_and_not_elsewhere() -> None:
    assert decided(
        "beit3", probes(minilm_cnn="better better", tfidf="undecided worse"),
        paired(("alignrec", "minilm-cnn", 0.001, 1.0), ("alignrec", "tfidf", -0.01, 0.01)),
    ) == {
        "head": ["zero-shot", "Item-CF", "under AlignRec, Recall@20"],
        "minilm-cnn": ["better", "better", "level +0.0010"],
        "tfidf": ["level", "worse", "worse -0.0100"],
    }  # fmt: skip


def test_controls_stand_below_and_other_forms_of_the_set_nowhere() -> None:
    every = probes(
        random="better undecided", beit3_untrained="better better", beit3_raw="worse worse", cnn="worse worse"
    )
    assert [*decided("beit3", every, None)] == ["head", "cnn", "random, a control", "beit3-untrained, a control"]
    assert verdict.tables("beit3", probes(beit3_raw="worse worse"), None) == []


def test_two_protocols_are_two_places() -> None:
    table = pa.concat_tables(
        [paired(("alignrec", "tfidf", 0.1, 0.01)),
         paired(("alignrec", "tfidf", 0.1, 0.9), protocol="strict", fingerprint="e" * 16)]
    )  # fmt: skip
    assert decided("beit3", None, table) == {
        "head": ["under AlignRec by mmrec, Recall@20", "under AlignRec by strict, Recall@20"],
        "tfidf": ["better +0.1000", "level +0.1000"],
    }


@pytest.mark.parametrize("ablated", [{"ablation_b": "no-cca"}, {"metric": "ndcg"}, {"features_a": "tfidf"}])
def test_other_tests_say_nothing_of_the_features(ablated: dict[str, str]) -> None:
    assert verdict.tables("beit3", None, paired(("alignrec", "beit3", 0.1, 0.01), **ablated)) == []


def test_the_note_names_users_seeds_and_protocol() -> None:
    (table,) = verdict.tables("beit3", probes(tfidf="better better"), paired(("bpr", "none", 0.05, 0.01)))
    assert "test Recall@20 of 2,970 users, each averaged over 3 seeds, protocol mmrec" in table.note
    assert "level: no significant difference" in table.note


@pytest.mark.parametrize("at", [[0], [1], [0, 1]])
def test_a_probe_counts_only_where_all_its_cutoffs_agree(at: list[int]) -> None:
    evidence = probes(tfidf="better better")
    for cutoff in at:  # of zero-shot
        evidence["verdicts"][cutoff]["verdict"] = "undecided"
    assert decided("beit3", evidence, None)["tfidf"] == ["level", "better"]


def test_the_advice_is_the_set_that_most_probes_decide_for_and_none_against() -> None:
    given = probes(best="undecided worse", linear="worse worse", tfidf="worse better", random="worse worse")
    sets = {"beit3": {"hit@20": 0.1501}, "linear": {"hit@20": 0.17}}
    given |= {name: {"users": 9, "chance": {"hit@20": 0.01}} | sets for name in ("zero_shot", "item_cf")}  # type: ignore[dict-item]
    assert verdict.advice(given) == (
        "Use linear, not beit3: it is better in zero-shot (.170 to .150 hit@20) and Item-CF (.170 to .150 hit@20), "
        "and worse in no probe."
    )
    flattered = given | {"learned": ["linear"]}  # these two probes are about interactions that it knows
    assert verdict.advice(flattered) == "Use best, not beit3: it is better in Item-CF, and worse in no probe."


@pytest.mark.parametrize("outcome", ["better better", "undecided undecided", "worse better"])
def test_without_a_better_set_nothing_is_advised(outcome: str) -> None:
    assert verdict.advice(probes(best=outcome)) == verdict.advice(None) == ""


def test_the_headline_is_one_sentence_of_what_was_decided() -> None:
    given = probes(
        minilm_cnn="better better", linear="undecided undecided", cnn="worse undecided", random="better better",
        beit3_untrained="better better", minilm_cnn_image_masked="better better",
    )  # fmt: skip
    tests = paired(("lightgcn", "none", 0.034, 0.01), ("bpr", "none", 0.05, 0.01), ("l3ae", "beit3", -0.01, 0.5),
                   ("vbpr", "tfidf", 0.1, 0.01))  # fmt: skip
    assert verdict.headline("shop", "tabular", "beit3", given, tests) == (
        "On shop, BEiT3 features beat MiniLM + CNN in 2 of 2 probes, are behind CNN in 1 of 2 probes and are level "
        "with linear; AlignRec on them is level with L3AE and beats LightGCN by .034."
    )


@pytest.mark.parametrize(("kind", "users"), [("sample", " (synthetic users)"), ("tabular", "")])
def test_a_set_that_no_test_sets_above_a_control_is_said_to_be_so(kind: str, users: str) -> None:
    given = probes(tfidf="better worse", random="undecided undecided", shuffled="undecided better")
    assert verdict.headline("shop", kind, "beit3", given, None) == (
        f"On shop{users}, BEiT3 features beat and are behind TF-IDF in 1 of 2 probes. No test shows that they are "
        "better than random."
    )


def test_without_a_comparison_there_is_no_headline() -> None:
    assert verdict.headline("shop", "tabular", "beit3", None, None) == ""
    assert "; AlignRec" not in verdict.headline("shop", "tabular", "beit3", probes(tfidf="better better"), None)
    only = verdict.headline("shop", "tabular", "beit3", None, paired(("bpr", "none", 0.05, 0.01)))
    assert only == "On shop, AlignRec on BEiT3 beats BPR by .050."


@pytest.mark.parametrize(
    ("name", "shown"),
    [("minilm-cnn", "MiniLM + CNN"), ("beit3-untrained", "BEiT3 untrained"), ("theirs-cnn", "theirs-cnn"),
     ("lightgcn", "LightGCN"), ("gfcf", "GF-CF"), ("minilm-cnn4096", "MiniLM cnn4096"), ("<b>", "<b>")],
)  # fmt: skip
def test_names_are_written_as_their_authors_do(name: str, shown: str) -> None:
    assert title(name) == shown
