"""A catalogue too large to be searched in full: work grows with the items, and figures are those of a sample."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy

import schemas
from pipeline import io
from pipeline.compare import command, similarity
from pipeline.compare.feature_set import FeatureSet
from pipeline.compare.similarity import compared
from pipeline.evaluation import statistics
from pipeline.interactions import profiles
from pipeline.interactions.profiles import Profiles
from pipeline.layout import Layout
from pipeline.probe import linear_cf, questions

WIDTH = 8
COSINES, FEWEST = 20_000, 20
"""141 items are searched in full, and 20 questions of 1,000 items or more"""


def shop(root: Path, items: int) -> Layout:
    """Write inputs of `compare`: two users per item, ten interactions each, and two feature sets."""
    layout, rng, users = Layout(root / "outputs", "shop"), np.random.default_rng(items), 2 * items
    pairs = np.unique(np.repeat(np.arange(users), 10) * items + rng.integers(0, items, 10 * users))
    n = len(pairs)
    split = [pairs // items, pairs % items, [None] * n, rng.permutation(n), rng.choice(3, n, p=[0.8, 0.1, 0.1])]
    interactions = pa.table(split, schemas.INTERACTIONS.names).cast(schemas.INTERACTIONS)
    io.write_table(interactions, layout.interactions, schemas.INTERACTIONS)
    ids = pa.table({"item_id": np.arange(items, dtype="i4"), "asin": [f"A{i}" for i in range(items)]})
    io.write_table(ids, layout.item_ids, schemas.ITEM_IDS)
    for name in "ab":
        np.save(root / f"{name}.npy", rng.standard_normal((items, WIDTH)).astype(np.float32))
    return layout


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count cosines of probes and of neighbours, and users drawn by a test, from now on."""
    work = Counter[str]()

    def watch(module: Any, name: str, size: Callable[..., int]) -> None:
        real = getattr(module, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            work[name] += size(*arguments)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    watch(questions, "hits", lambda features, asked, *_: len(features) * len(asked.target))
    watch(similarity, "neighbours", lambda features, _, rows: len(features) * len(rows))
    watch(statistics, "resampled", lambda values, *_: len(values))
    watch(Profiles, "recalls", lambda asked, *_: asked.has.shape[0] * len(asked.candidates))
    return work


def test_work_grows_with_the_items_and_not_with_their_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "COSINES", COSINES)
    monkeypatch.setattr(questions, "FEWEST", FEWEST)
    monkeypatch.setattr(profiles, "SCORED", COSINES)
    monkeypatch.setattr(profiles, "FEWEST_USERS", FEWEST)
    monkeypatch.setattr(linear_cf, "GIB", 0)  # of a catalogue as large as this stands for, it is not asked
    work = {}
    for items in (1000, 2000, 4000):
        folder = tmp_path / str(items)
        folder.mkdir()
        layout = shop(folder, items)
        with monkeypatch.context() as context:
            work[items] = counted(context)
            sets = [str(folder / f"{name}.npy") for name in "ab"]
            comparison = command.compare(layout, toy.PARAMS, sets, 0, folder / "out")
        assert work[items]["neighbours"] == 2 * items * FEWEST  # of each set
        # two sets and three controls, raw and processed, three probes; groups differ in size
        assert work[items]["hits"] <= 10 * 3 * 1.5 * items * FEWEST
        # five sets in three forms, of which valid chooses; and ten draws of a fifth, raw and processed
        assert work[items]["recalls"] <= (5 * 3 + 10 * 10 / 5) * items * FEWEST
        assert comparison["pairs"][0]["sampled"] == FEWEST
    for larger, smaller in ((2000, 1000), (4000, 2000)):
        assert work[larger]["hits"] < 2.5 * work[smaller]["hits"]
        assert work[larger]["resampled"] < 2 * work[smaller]["resampled"]


def test_neighbours_of_some_items_and_of_a_few_are_those_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    rows = np.array([3, 17, 59])
    assert np.array_equal(similarity.neighbours(x, 6, rows), similarity.neighbours(x, 6)[rows])
    monkeypatch.setattr(questions, "COSINES", 0)
    for items in (2, 3, 7):
        pair = compared([FeatureSet(name, "", x[:items]) for name in "ab"], 3)["pairs"][0]
        assert (pair["overlap"], "sampled" in pair) == (1, False)
