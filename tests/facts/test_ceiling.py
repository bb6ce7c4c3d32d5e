"""The way from chance to what is planted: shares by each ceiling, and no table where nothing is."""

from pipeline.facts import ceiling


def test_shares_are_of_the_way_from_chance_to_each_ceiling() -> None:
    hits = {"chance": 0.1, "planted": 0.5, "planted-text-masked": 0.3, "cnn": 0.2, "linear": 0.4, "shuffled": 0.1}
    figures = {"users": 5} | {name: {"hit@20": value} for name, value in hits.items()}
    (table,) = ceiling.tables({"zero_shot": figures})
    assert table.head == ["feature set", "zero-shot"]
    assert table.rows == [["linear", "75%, 150%"], ["cnn", "25%, 50%"], ["shuffled", "0%, 0%"]]


def test_without_a_ceiling_there_is_no_table() -> None:
    figures = {"users": 5, "chance": {"hit@20": 0.1}, "linear": {"hit@20": 0.4}}
    assert ceiling.tables({"zero_shot": figures}) == []
    assert ceiling.tables(None) == []
