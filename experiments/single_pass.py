"""AlignRec trained in one chronological pass (docs/study.md).

Command: `python -m experiments.single_pass sample`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.cutoff import bounded_cutoff
from alignrec.pipeline.models.metrics import evaluate_vectors
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, compared, opened, pretraining, record


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


def list_arms(steps: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return keys of section `pretrain` by arm; the others are compared with the first."""
    arms: dict[str, dict[str, float]] = {}
    for number in steps:
        if number == 0:
            arms["no pre-training"] = {"steps": 0}
            continue
        arms[f"{number} steps, no teachers"] = {"steps": number, "distill": 0.0}
        arms[f"{number} steps"] = {"steps": number}
    return arms


def recall_on_valid(fitted: Fit, split: Split) -> np.ndarray:
    """Return Recall@20 of each valid user, float64 [N]."""
    cutoff = bounded_cutoff(split.n_items)
    candidates = split.cold_items("valid") if split.has_cold_items else None
    evaluation = evaluate_vectors(
        fitted.user, fitted.item, split, "valid", [cutoff], candidates=candidates
    )
    return evaluation.per_user["recall", cutoff]


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    steps: Annotated[list[int], typer.Option(min=0)] = [0, 50],  # noqa: B006
    seeds: int = 3,
) -> None:
    """Pre-train for each number of steps, with and without teachers, train AlignRec for one epoch
    and record its recall on valid.
    """
    given, layout, folder = opened(dataset, params, root, "single_pass")
    features = given[TrainSettings].features
    sets = given[BEiT3Sets].model_copy(update={"sets": [features]})
    settings = model_settings(given, RELEASED).model_copy(update={"epochs": 1, "batch_size": 128})

    recalls = {}
    arms = list_arms(steps)
    for name, keys in arms.items():
        parameters = given.with_sections(pretraining(given, **keys), sets)
        branch = branched(layout, folder / name, parameters, ["pretrain", "beit3", "graph"])
        data = inputs.read_inputs(branch, features)
        for number in range(seeds):
            seed = seed_for("single pass", dataset, number)
            sampler = partial(ByTime, layout=layout)
            fitted = fit(MODELS[RELEASED], *data, settings, seed, sampler=sampler)
            recalls[CellLabel(RELEASED, name, number)] = recall_on_valid(fitted, data.split)
        print(f"{name}: {seeds} seeds", flush=True)

    note = (
        f"AlignRec on {features} after one pass in order of time, batches of "
        f"{settings.batch_size}. Seeds are AlignRec's; each encoder is trained once."
    )
    record(layout, "single-pass", compared(recalls, [*arms], note, split="valid"))


if __name__ == "__main__":
    typer.run(main)
