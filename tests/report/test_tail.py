"""The long tail's tables and shares on rows whose figures are plain to see."""

from pathlib import Path

import pytest
import toy
from study_tables import tail_table

import schemas
from pipeline import io
from pipeline.evaluation.evidence import comparisons
from pipeline.report import tail


def test_the_tail_has_means_and_leads_with_intervals_and_marks_what_is_sure() -> None:
    means, leads, of_history, _ = tail.tails(tail_table())
    assert means.head == ["run", "tail", "head"]
    assert means.rows[0] == ["n", "7", "7"]
    assert means.rows[1] == ["AlignRec on beit3", *["0.3000 (0.2500 .. 0.3500)"] * 2]
    assert "thirds" in means.note
    assert [row[0] for row in leads.rows] == ["n", "BPR", "AlignRec on tfidf"]  # neither itself nor the controls
    assert leads.rows[1][1] == "+0.1000 (+0.0500 .. +0.1500)"
    assert leads.marks == {(1, 1): "better", (1, 2): "better"}
    assert of_history.heading == "Recall@20 by history"
    assert tail.tails(tail_table().slice(0, 0)) == []


def test_who_is_shown_stands_beside_what_users_chose(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    (judged,) = comparisons(io.read_table(layout.results, schemas.RESULTS))
    k, slices = tail.sliced(io.read_table(layout.slices, schemas.SLICES), judged)
    who = tail.shown(slices)
    assert k == 20
    parts = ["less popular half", "next four tenths", "most popular tenth"]  # no cold target, none shown
    assert [list(of) for of in who.values()] == [parts] * 3
    assert list(who)[:2] == [tail.CHOSEN, "AlignRec on beit3"]
    assert list(who[tail.CHOSEN].values()) == pytest.approx([50 / 125, 58 / 125, 17 / 125])
    assert list(who["AlignRec on beit3"].values()) == pytest.approx([0.5, 0.4, 0.1])
    assert tail.in_words(who, "LightGCN") == [
        "The less popular half of the items has 40% of what users chose in test, 50% of what LightGCN shows, and 50% "
        "of what AlignRec on beit3 shows."
    ]
    assert tail.in_words(who, "nobody") == tail.in_words({}, "lightgcn") == []
