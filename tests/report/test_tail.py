"""The long tail's tables and chart on rows whose figures are plain to see."""

from study_tables import tail_table

from pipeline.evaluation.evidence import Comparison, Row
from pipeline.report import sections, tail


def test_leads_have_intervals_and_marks_where_they_are_sure() -> None:
    by_popularity, by_history = tail.leads(tail_table())
    assert by_popularity.head == ["run", "tail", "head"]
    assert [row[0] for row in by_popularity.rows] == ["n", "BPR", "AlignRec on tfidf"]  # neither itself nor controls
    assert by_popularity.rows[0][1:] == ["7", "7"]
    assert by_popularity.rows[1][1] == "+0.1000 (+0.0500 .. +0.1500)"
    assert by_popularity.marks == {(1, 1): "better", (1, 2): "better"}
    assert "thirds" in by_popularity.note
    assert by_history.heading == "AlignRec's lead by history"
    assert tail.leads(tail_table().slice(0, 0)) == []


def test_the_tail_is_drawn_by_group_for_the_models_on_the_released_features() -> None:
    judged = Comparison("mmrec", "e" * 16, [Row("alignrec", "beit3", "", {}), Row("bpr", "none", "", {})])
    drawn = sections.groups_chart(tail.groups(tail_table(), judged, "popularity"), "recall", "beit3")
    assert drawn
    assert drawn.keys == ["AlignRec on beit3", "BPR"]  # neither another feature set nor a control
    assert [row.name for row in drawn.rows] == ["tail", "head"]
    assert drawn.rows[0].spans[0] == (71.43, 85.71, 100.0)
