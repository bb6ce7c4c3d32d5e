"""`python tests/realdata/fast.py`: how long the published and the fast recipe take to one valid Recall@20 on Baby.

Both train on this machine, one after the other, on the published split and 768 random features an item: Baby's own are
not at hand. The published recipe runs to its own early stop, minutes; the fast one to its last epoch.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pc

from pipeline import graph
from pipeline.config import Train
from pipeline.encoders import controls
from pipeline.models.alignrec import AlignRec
from pipeline.split import Pairs, Split
from pipeline.train import fit

DATA = Path("../shared/data/baby_2014/baby.inter.gz")
WIDTH, SEED = 768, 0


def main() -> None:
    """Train both, print what each took."""
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: the real data sets live beside the project, not in it")
    split = published_split()
    features = controls.random(split.n_items, WIDTH, SEED)
    edges = graph.neighbours(features, 10)
    curves = {recipe: curve(split, features, edges, Train(recipe=recipe)) for recipe in ("published", "fast")}
    aim = max(recall for _, recall in curves["published"])
    reached = {recipe: next((at for at, recall in found if recall >= aim), None) for recipe, found in curves.items()}
    for recipe, found in curves.items():
        best = max(recall for _, recall in found)
        seconds = "never" if reached[recipe] is None else f"{reached[recipe]:.0f} s"
        print(
            f"{recipe}: {len(found)} epochs, {found[-1][0]:.0f} s; best valid Recall@20 {best:.4f}; {aim:.4f} {seconds}"
        )
    if reached["fast"]:
        print(f"the fast recipe takes {reached['fast'] / curves['published'][-1][0]:.1%} of the published one's run, "
              f"{reached['fast'] / reached['published']:.1%} of its way to its best epoch")  # fmt: skip


def published_split() -> Split:
    """Read MMRec's split: x_label 0 train, 1 valid, 2 test."""
    table = pc.read_csv(DATA, parse_options=pc.ParseOptions(delimiter="\t"))
    users, items, label = (table[name].to_numpy() for name in ("userID", "itemID", "x_label"))
    order = np.lexsort((items, users))
    parts = [order[label[order] == kind] for kind in range(3)]
    train, valid, test = (Pairs(users[part].astype("i4"), items[part].astype("i4")) for part in parts)
    return Split(int(users.max()) + 1, int(items.max()) + 1, train, valid, test)


def curve(split: Split, features: np.ndarray, edges: Any, params: Train) -> list[tuple[float, float]]:
    """Return seconds since the start and valid Recall@20 at the end of each epoch."""
    started, found = time.perf_counter(), []

    def note(line: dict[str, Any]) -> None:
        found.append((time.perf_counter() - started, line["valid_recall@20"]))
        print(f"{params.recipe} {len(found)}: {found[-1][0]:.0f} s, {found[-1][1]:.4f}", file=sys.stderr)

    fit(AlignRec, split, features, edges, params, SEED, note)
    return found


if __name__ == "__main__":
    main()
