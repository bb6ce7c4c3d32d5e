"""Figures of semantic IDs stand beside those of controls."""

from pathlib import Path

import toy

from pipeline.facts import codes
from pipeline.run import running
from stages import semantic_ids

SECTION = {"features": ["beit3"], "methods": ["residual-kmeans", "random"], "levels": 2, "codes": 2}


def test_methods_stand_beside_controls_in_the_order_of_the_registry(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    with running("semantic_ids", "shop", toy.params(semantic_ids=SECTION), tmp_path) as run:
        semantic_ids.main(run)
    judged = codes.gathered(layout)
    assert [(j.features, j.method) for j in judged] == [("beit3", method) for method in SECTION["methods"]]
    table = codes.headline(judged)
    assert all(len(row) == len(table.head) for row in table.rows)
    assert "random is a control: useful codes must beat it." in table.note
    assert table.rows[1][-2:] == ["", ""]  # random codes reconstruct nothing
    assert "Not for random: the codes stand for no vector." in codes.cost(judged).note
