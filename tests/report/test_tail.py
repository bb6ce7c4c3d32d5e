"""The long tail's tables and chart on rows whose figures are plain to see."""

from study_tables import tail_table

from pipeline.report import tail


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
