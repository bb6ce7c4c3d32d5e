"""A shop of two tastes with cold items: COLD targets of valid, and as many of test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from shop import tastes, toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split
from alignrec.pipeline.features.folder import SET
from alignrec.pipeline.runtime.layout import Layout

USERS, ITEMS, COLD = 40, 120, 26
"""COLD items each of valid and test: the first ones of the catalogue, and those that follow"""
DIVISION = "cold-items 0.4"


def rows() -> list[tuple[int, int, int]]:
    """Return user, item and split: even users have even items, odd users odd ones."""
    rng = np.random.default_rng(0)
    parts = [np.arange(2 * COLD, ITEMS), np.arange(COLD), np.arange(COLD, 2 * COLD)]
    bought = [
        (user, int(item), which)
        for user in range(USERS)
        for which, n in enumerate((8, 3, 3))
        for item in rng.permutation(parts[which][parts[which] % 2 == user % 2])[:n]
    ]
    return bought + [(user, item, 0) for item in parts[0] for user in (item % 2,)]


def content() -> np.ndarray:
    return tastes.content(1, ITEMS)


def outputs(root: Path) -> Layout:
    """Write the outputs of all stages before train: dataset shop, feature sets f and `noise`."""
    layout = Layout(root, "shop")
    tastes.write_catalogue(layout, rows(), USERS, ITEMS, {"division": DIVISION})
    write_set(layout, "f", content())
    write_set(layout, "noise", np.random.default_rng(2).normal(size=(ITEMS, 8)).astype(np.float32))
    return layout


def write_set(layout: Layout, name: str, vectors: np.ndarray) -> None:
    tastes.write_set(layout, name, vectors, k=6)
    io.write_json(layout.features(name) / SET, toy.facts(name).model_dump())


def draw_again(layout: Layout) -> None:
    """Write a second draw with other cold items."""
    again = [(user, (item - 2 * COLD) % ITEMS, which) for user, item, which in rows()]
    path = replace(layout, drawn=1).interactions
    io.write_table(tastes.interactions(again), path, schemas.INTERACTIONS, {"division": DIVISION})


def parts() -> split.Split:
    table = tastes.interactions(rows()).replace_schema_metadata({"alignrec": f'{{"division": "{DIVISION}"}}'})
    return split.load_split(table, USERS, ITEMS)


def params(**sections: object) -> Params:
    own: dict[str, Any] = {"train": {"features": "f", "dim": 8, "batch_size": 64, "epochs": 3, "lr": 0.01}}
    benchmark = {"models": ["bpr", "contentknn"], "features": ["f", "noise"], "seeds": 2, "ks": [5, 20], "workers": 1}
    own |= {"benchmark": benchmark, "interactions": {"protocol": "cold-items", "cold_share": 0.4}}
    return toy.params(**own | sections)
