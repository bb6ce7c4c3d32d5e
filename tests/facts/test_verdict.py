"""The verdict in words claims what the tests decided, and no more."""

import pyarrow as pa
import pytest
from verdicts import paired, probes

from pipeline.facts import verdict


def test_a_rival_is_beaten_where_the_tests_say_so_and_not_elsewhere() -> None:
    said = verdict.sentences(
        "beit3", probes(minilm_cnn="better better", tfidf="undecided worse"),
        paired(("alignrec", "minilm-cnn", 0.001, 1.0), ("alignrec", "tfidf", -0.01, 0.01)),
    )  # fmt: skip
    assert said == [
        "beit3 beats minilm-cnn in zero-shot and Item-CF; not told apart under AlignRec (+0.0010 Recall@20).",
        "beit3 loses to tfidf in Item-CF and under AlignRec (-0.0100 Recall@20); not told apart in zero-shot.",
    ]


def test_what_is_nowhere_decided_is_called_so() -> None:
    assert verdict.sentences("beit3", probes(tfidf="undecided undecided"), None) == [
        "beit3 and tfidf are not told apart in zero-shot and Item-CF."
    ]


def test_controls_are_one_sentence_that_names_what_is_not_beaten() -> None:
    every = probes(random="better better", beit3_untrained="better better", beit3_raw="worse worse")
    assert verdict.sentences("beit3", every, None) == [
        "beit3 beats its controls, random and beit3-untrained, in zero-shot and Item-CF."
    ]  # another form of the same vectors is neither a rival nor a control
    some = probes(random="better better", shuffled="better undecided")
    assert verdict.sentences("beit3", some, paired(("alignrec", "random", 0.1, 0.2))) == [
        "Of its controls, beit3 does not surely beat random under AlignRec, nor shuffled in Item-CF."
    ]


def test_other_recommenders_have_their_gaps() -> None:
    against = paired(("bpr", "none", 0.05, 0.01), ("lightgcn", "none", 0.03, 0.01), ("vbpr", "beit3", -0.02, 0.3))
    assert verdict.sentences("beit3", None, against) == [
        "AlignRec on beit3 beats bpr and lightgcn (+0.0300 to +0.0500 Recall@20), is not told apart from vbpr "
        "(-0.0200 Recall@20)."
    ]


def test_two_protocols_are_two_places() -> None:
    table = pa.concat_tables(
        [paired(("alignrec", "tfidf", 0.1, 0.01)),
         paired(("alignrec", "tfidf", 0.1, 0.9), protocol="strict", fingerprint="e" * 16)]
    )  # fmt: skip
    assert verdict.sentences("beit3", None, table) == [
        "beit3 beats tfidf under AlignRec by mmrec (+0.1000 Recall@20); "
        "not told apart under AlignRec by strict (+0.1000 Recall@20)."
    ]


@pytest.mark.parametrize("ablated", [{"ablation_b": "no-cca"}, {"metric": "ndcg"}, {"features_a": "tfidf"}])
def test_other_tests_say_nothing_of_the_features(ablated: dict[str, str]) -> None:
    assert verdict.sentences("beit3", None, paired(("alignrec", "beit3", 0.1, 0.01), **ablated)) == []


def test_the_basis_names_users_seeds_and_protocol() -> None:
    said = verdict.basis(probes(tfidf="better better"), paired(("bpr", "none", 0.05, 0.01)))
    assert "test Recall@20 of 2,970 users, each averaged over 3 seeds, protocol mmrec" in said
    assert "raw, processed and at every cutoff alike" in said


@pytest.mark.parametrize("at", [[0], [1], [0, 1]])
def test_a_probe_counts_only_where_all_its_cutoffs_agree(at: list[int]) -> None:
    evidence = probes(tfidf="better better")
    for cutoff in at:  # of zero-shot
        evidence["verdicts"][cutoff]["verdict"] = "undecided"
    assert verdict.sentences("beit3", evidence, None) == ["beit3 beats tfidf in Item-CF; not told apart in zero-shot."]


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
        minilm_cnn="better better", linear="undecided undecided", clip="worse undecided", random="better better",
        beit3_untrained="better better", minilm_cnn_image_masked="better better",
    )  # fmt: skip
    tests = paired(("lightgcn", "none", 0.034, 0.01), ("bpr", "none", 0.05, 0.01), ("l3ae", "beit3", -0.01, 0.5),
                   ("vbpr", "tfidf", 0.1, 0.01))  # fmt: skip
    assert verdict.headline("shop", "tabular", "beit3", given, tests) == (
        "On shop, BEiT3 features beat MiniLM + CNN in 2 of 2 probes, are behind CLIP in 1 of 2 probes and are level "
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
