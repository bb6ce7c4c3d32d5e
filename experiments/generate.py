"""A generator of semantic IDs, by the encoder of the items (docs/study.md).

Commands: `pip install cornac==3.0.1`, then `python -m experiments.generate sample`.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.runtime.section import validate
from alignrec.pipeline.runtime.seeds import seed_for
from experiments import tiger
from experiments.shared import compared, opened, record

SETS = ["random", "tfidf", "minilm", "linear", "beit3"]  # the first is the reference
LEVELS = 3  # codes per item
POPULAR = "no generator: most popular"
NOTE = (
    "Cornac's TIGER, {epochs} epochs, on {levels} codes of {values} values per item by residual "
    "k-means; the first row codes random vectors. {users:,} users; the last item of each is to be "
    "generated, among all that the user lacked, and is in no training sequence."
)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: Annotated[list[str], typer.Option()] = SETS,
    users: int = 1000,
    codes: int = 64,
    epochs: int = 20,
    seeds: int = 3,
) -> None:
    """Train a generator on the codes of each feature set and record recall of the next item."""
    _, layout, _ = opened(dataset, params, root, "generate")
    ids = validate(SemanticIds, {"levels": LEVELS, "codes": codes}, "semantic_ids")
    histories = tiger.draw_histories(layout, users)
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    bought = np.concatenate([history[:-1] for history in histories])
    by_sales = np.argsort(-np.bincount(bought, minlength=n_items), kind="stable")
    popular = tiger.hit_last_items([by_sales] * len(histories), histories)

    recalls = {}
    for number in range(seeds):
        recalls[CellLabel("tiger", POPULAR, number)] = popular
        for name in features:
            start = time.perf_counter()
            seed = seed_for("generate", dataset, number)
            coded = tiger.code_all_items(layout, name, ids, seed)
            hits = tiger.hit_last_items(
                tiger.rank_items(coded, ids, histories, epochs, seed), histories
            )
            recalls[CellLabel("tiger", name, number)] = hits
            seconds = time.perf_counter() - start
            print(f"{name}, seed {number}: {hits.mean():.4f} in {seconds:.0f} s", flush=True)

    note = NOTE.format(
        epochs=epochs,
        levels=LEVELS,
        values=codes,
        users=len(histories),
    )
    record(layout, "generate", compared(recalls, [*features, POPULAR], note), reads_network=False)


if __name__ == "__main__":
    typer.run(main)
