"""Probes as tables: the best figures are marked."""

from pipeline.facts import probes


def test_the_best_figure_of_each_column_is_marked() -> None:
    figures = {"users": 5, "chance": {"hit@5": 0.1, "hit@10": 0.2}, "a": {"hit@5": 0.3, "hit@10": 0.3},
             "b": {"hit@5": 0.2, "hit@10": 0.4}}  # fmt: skip
    (table,) = probes.tables({"zero_shot": figures})
    assert [r[0] for r in table.rows] == ["b", "a", "chance"]
    assert table.marks == {(1, 1): "best", (0, 2): "best"}
