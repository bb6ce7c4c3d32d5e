"""The level of the category path that best separates items."""

from alignrec.pipeline.items import columns


def test_labels_come_from_the_first_level_that_tells_items_apart() -> None:
    paths = [["shop", "a"]] * 12 + [["shop", "b", "deep"]] * 10 + [["shop", "rare"]] * 3 + [[]]
    labels = columns.label_items(paths)
    assert labels is not None
    assert labels.names == ["a", "b"]
    assert labels.rows.tolist() == list(range(22))
    assert labels.label.tolist() == [0] * 12 + [1] * 10
    assert columns.label_items([["shop"]] * 50) is None
    assert columns.label_items([]) is None
