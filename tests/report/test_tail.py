"""The long tail's tables and chart on rows whose figures are plain to see."""

from study_tables import tail_table

from pipeline.evaluation.evidence import Comparison, Row
from pipeline.report import sections, tail


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


def test_the_tail_is_drawn_by_group_for_the_models_on_the_released_features() -> None:
    judged = Comparison("mmrec", "e" * 16, [Row("alignrec", "beit3", "", {}), Row("bpr", "none", "", {})])
    drawn = sections.groups_chart(tail.groups(tail_table(), judged, "popularity"), "recall", "beit3")
    assert drawn
    assert drawn.keys == ["AlignRec on beit3", "BPR"]  # neither another feature set nor a control
    assert [row.name for row in drawn.rows] == ["tail", "head"]
    assert drawn.rows[0].spans[0] == (71.43, 85.71, 100.0)
