"""Chips claim what the tests decided, and no more; names are written as their authors do."""

import pytest
from verdicts import probes

from pipeline.facts import chips, verdict
from pipeline.facts.words import title


@pytest.mark.parametrize(
    ("outcomes", "text", "colour"),
    [("better better", "beats TF-IDF in 2 of 2 probes", "better"),
     ("undecided undecided", "level with TF-IDF in 2 probes", "level"),
     ("worse undecided", "behind TF-IDF in 1 of 2 probes", "worse"),
     ("better worse", "beats TF-IDF in 1 of 2 probes; behind TF-IDF in 1 of 2 probes", "level")],
)  # fmt: skip
def test_a_chip_counts_the_probes(outcomes: str, text: str, colour: str) -> None:
    places = verdict.probed(probes(tfidf=outcomes)["verdicts"])
    chip = chips.in_probes("beit3", "tfidf", places)
    assert chip is not None
    assert (chip.text, chip.outcome) == (text, colour)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("minilm-cnn", "MiniLM + CNN"), ("beit3-untrained", "BEiT3 untrained"), ("theirs-cnn", "theirs-cnn"),
     ("lightgcn", "LightGCN"), ("minilm-cnn4096", "MiniLM cnn4096"), ("<b>", "<b>")],
)  # fmt: skip
def test_names_are_written_as_their_authors_do(name: str, shown: str) -> None:
    assert title(name) == shown
