"""AlignRec trained in one chronological pass (docs/study.md).

Command: `python -m experiments.single_pass sample`.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.benchmark.settings import model_settings
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.report.table import Table, Value
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, opened, pretraining, record


class ByTime(Sampler):
    """Sampler of train pairs in chronological order of their first interaction."""

    def __init__(self, split: Split, layout: Layout) -> None:
        super().__init__(split)
        rows = io.read_table(layout.interactions, schemas.INTERACTIONS)
        if rows["timestamp"].null_count:
            raise UserError(f"{layout.interactions}: the source has no times, so there is no order")
        train = rows.filter(np.equal(rows["split"].to_numpy(), schemas.TRAIN))
        users, items, times = (
            train[name].to_numpy() for name in ("user_id", "item_id", "timestamp")
        )
        keys = users.astype(np.int64) * split.n_items + items
        order = np.lexsort((times, keys))
        unique, first = np.unique(keys[order], return_index=True)
        first_times = times[order][first]
        pairs = self.pairs.users.astype(np.int64) * split.n_items + self.pairs.items
        self._order = np.argsort(first_times[np.searchsorted(unique, pairs)], kind="stable")

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return self._order


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    steps: Annotated[list[int], typer.Option()] = [0, 50],  # noqa: B006
    seeds: int = 3,
) -> None:
    """Pre-train for each number of steps, train AlignRec for one epoch and record its recall on
    valid.
    """
    given, layout, folder = opened(dataset, params, root, "single_pass")
    features = given[TrainSettings].features
    rows: list[tuple[Value, ...]] = []
    sets = given[BEiT3Sets].model_copy(update={"sets": [features]})
    settings = model_settings(given, RELEASED).model_copy(update={"epochs": 1, "batch_size": 128})
    for number in steps:
        parameters = given.with_sections(pretraining(given, steps=number), sets)
        branch = branched(layout, folder / str(number), parameters, ["pretrain", "beit3", "graph"])
        data = inputs.read_inputs(branch, features)
        recalls = []
        for seed_number in range(seeds):
            seed = seed_for("single pass", dataset, seed_number)
            sampler = partial(ByTime, layout=layout)
            fitted = fit(MODELS[RELEASED], *data, settings, seed, sampler=sampler)
            recalls.append(fitted.valid[f"recall@{CUTOFF}"])
        rows.append((str(number), mean_and_sd(recalls)))

    batches = f"batches of {settings.batch_size}; {seeds} seeds."
    note = f"AlignRec on {features} after one pass in order of time, {batches}"
    head = ("steps of pre-training", "valid Recall@20")
    record(layout, "single-pass", Table.of("", note, head, rows))


if __name__ == "__main__":
    typer.run(main)
