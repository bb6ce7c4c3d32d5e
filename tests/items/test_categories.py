"""The level of the category path that separates items."""

from alignrec.pipeline.items import categories


def test_labels_come_from_the_first_level_that_tells_items_apart() -> None:
    paths = [["shop", "a"]] * 12 + [["shop", "b", "deep"]] * 10 + [["shop", "rare"]] * 3 + [[]]
    labels = categories.labels(paths)
    assert labels is not None
    assert labels.names == ["a", "b"]
    assert labels.rows.tolist() == list(range(22))
    assert labels.label.tolist() == [0] * 12 + [1] * 10
    assert categories.labels([["shop"]] * 50) is None
    assert categories.labels([]) is None
