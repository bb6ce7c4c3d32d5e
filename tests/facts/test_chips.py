"""Chips claim what the tests decided, and no more."""

import pytest
from verdicts import paired, probes

from pipeline.facts import chips
from pipeline.facts.words import title


def said(*given: object) -> list[tuple[str, str]]:
    return [(chip.text, chip.outcome) for chip in chips.of_report("beit3", *given)]  # type: ignore[arg-type]


def test_a_rival_is_beaten_level_or_ahead() -> None:
    assert said(probes(minilm_cnn="better better", tfidf="undecided undecided", clip="worse undecided"), None) == [
        ("beats MiniLM + CNN in 2 of 2 probes", "better"),
        ("level with TF-IDF in 2 probes", "level"),
        ("behind CLIP in 1 of 2 probes", "worse"),
    ]


def test_won_and_lost_is_neither_good_nor_bad() -> None:
    assert said(probes(tfidf="better worse"), None) == [
        ("beats TF-IDF in 1 of 2 probes; behind TF-IDF in 1 of 2 probes", "level")
    ]


def test_under_alignrec_level_rivals_share_a_chip() -> None:
    tests = paired(
        ("alignrec", "tfidf", -0.004, 1.0), ("alignrec", "minilm", 0.001, 1.0), ("alignrec", "clip", 0.1, 0.01)
    )
    assert said(None, tests) == [
        ("beats CLIP under AlignRec", "better"),
        ("level with TF-IDF and MiniLM under AlignRec", "level"),
    ]


def test_recommenders_have_their_leads_the_strongest_first_and_on_these_features_alone() -> None:
    tests = paired(("lightgcn", "none", 0.034, 0.01), ("freedom", "beit3", -0.02, 0.01), ("bm3", "beit3", 0.01, 0.5),
                   ("vbpr", "tfidf", 0.1, 0.01))  # fmt: skip
    assert said(None, tests) == [
        ("+.034 over LightGCN", "better"),
        ("-.020 to FREEDOM", "worse"),
        ("level with BM3", "level"),
    ]


def test_controls_are_counted() -> None:
    assert said(probes(random="better better", shuffled="better better"), None) == [
        ("beats all 2 controls everywhere", "better")
    ]
    assert said(probes(random="better undecided", shuffled="better better"), None) == [
        ("beats 1 of 2 controls everywhere", "level")
    ]
    assert said(None, None) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [("minilm-cnn", "MiniLM + CNN"), ("beit3-untrained", "BEiT3 untrained"), ("theirs-cnn", "theirs-cnn"),
     ("lightgcn", "LightGCN"), ("minilm-cnn4096", "MiniLM cnn4096"), ("<b>", "<b>")],
)  # fmt: skip
def test_names_are_written_as_their_authors_do(name: str, shown: str) -> None:
    assert title(name) == shown
