"""What sets items apart is counted from the tables, and from nothing else."""

from pathlib import Path

import pyarrow as pa
import pytest
import toy

from pipeline.report import facets, neighbours
from pipeline.report.outputs import Outputs


def edges(*near: list[int]) -> pa.Table:
    """Return EDGES, as far as they are read: of each item itself and its neighbours."""
    rows = [(item, other) for item, others in enumerate(near) for other in (item, *others)]
    return pa.table({"item_id": [i for i, _ in rows], "neighbour_id": [j for _, j in rows]})


def test_the_toy_shop(tmp_path: Path) -> None:
    outputs = Outputs(toy.outputs(tmp_path), "sample", "beit3")
    near = neighbours.neighbours(outputs, 2, 3, 10, 10, 0)
    assert near
    found = facets.read(outputs, near)
    assert found.facets == {"no image": [4], "duplicate image": [0, 1, 2, 3, 5], "no text": [4], "cold": [5]}
    assert found.popularity == [1, 2, 2, 2, 1, 0]
    assert found.words[0] == "A0"  # nothing that title and category lack


def test_shared_values_stand_more_than_once_and_are_not_empty() -> None:
    assert facets.shared(["a", "", "b", "a", ""]) == [0, 3]
    assert facets.shared([]) == []


def test_changed_items_have_no_common_neighbour_and_some_in_both() -> None:
    a, b = edges([1, 2], [0], [], [0]), edges([2, 3], [3], [0], [1])
    assert facets.changed(a, b, 4) == [1, 3]  # 2 has no neighbours in a


def test_columns_are_ours_the_best_rival_and_a_control(tmp_path: Path) -> None:
    outputs = Outputs(toy.outputs(tmp_path), "sample", "beit3")
    names = ["beit3", "beit3-raw", "minilm-cnn", "tfidf", "random", "shuffled"]
    figures = {name: {"hit@20": at} for name, at in (("tfidf", 0.5), ("minilm-cnn", 0.4), ("beit3-raw", 0.9))}
    object.__setattr__(
        outputs,
        "__dict__",
        outputs.__dict__ | {"probes": {"zero_shot": {"users": 4, "chance": {"hit@20": 0.1}} | figures}},
    )
    assert neighbours.columns(names, outputs) == ["beit3", "tfidf", "random"]
    assert neighbours.columns(["x"], outputs) == ["x"]
    assert neighbours.columns(["random", "y"], outputs) == ["y", "random"]


@pytest.mark.parametrize("searchable", [2, 10])
def test_a_middling_catalogue_keeps_three_sets(tmp_path: Path, searchable: int) -> None:
    layout = toy.outputs(tmp_path)
    toy.write_features(
        layout, "tfidf", facets.np.random.default_rng(7).normal(size=(6, 2)), [f"A{i}" for i in range(6)]
    )
    near = neighbours.neighbours(Outputs(layout, "sample", "beit3"), 2, 3, searchable, 10, 0)
    assert near
    assert len(near.sets) == (3 if searchable < 6 else 4)
    assert near.mapped


def test_of_a_large_catalogue_the_neighbours_of_the_gallery_are_read(tmp_path: Path) -> None:
    outputs = Outputs(toy.outputs(tmp_path), "sample", "beit3")
    every, some = (neighbours.neighbours(outputs, 2, 3, 1, mapped, 0) for mapped in (6, 5))
    assert every
    assert some
    assert not some.mapped
    for name, nearest_of in some.sets.items():
        assert nearest_of == {item: every.sets[name][item] for item in some.items}
