"""The card of a release has the figures of its semantic IDs, beside those of controls."""

from __future__ import annotations

from pathlib import Path

import toy

from pipeline.run import running
from stages import publish, semantic_ids

SECTION = {"features": ["beit3", "random"], "levels": 2, "codes": 2}


def test_the_card_has_the_figures_of_the_released_feature_sets(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    params = toy.params(semantic_ids=SECTION, publish={"features": ["beit3"]})
    for stage in (semantic_ids, publish):
        with running(stage.__name__.removeprefix("stages."), "shop", params, tmp_path) as run:
            stage.main(run)
    card = (layout.release / "README.md").read_text()
    assert "### Semantic IDs" in card
    assert "### What coding costs" in card
    assert "| beit3 · residual-kmeans |" in card
    assert "| beit3 · random |" in card
    assert "| random · residual-kmeans |" not in card  # codes of a feature set that is not released
