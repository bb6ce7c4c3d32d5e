"""AlignRec trained in one chronological pass (docs/study.md): `python -m experiments.single_pass sample`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.settings import model_settings
from alignrec.pipeline.encode.params import BEiT3
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.interactions.split import Split
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.pretrain.params import Pretrain
from alignrec.pipeline.train import inputs
from alignrec.pipeline.train.inputs import Sampler
from alignrec.pipeline.train.loop import fit
from alignrec.pipeline.train.params import Released
from experiments.shared import branched, opened


class ByTime(Sampler):
    """Sampler of train pairs in chronological order of their first interaction."""

    def __init__(self, split: Split, layout: Layout) -> None:
        super().__init__(split)
        rows = io.read_table(layout.interactions, schemas.INTERACTIONS)
        if rows["timestamp"].null_count:
            raise UserError(f"{layout.interactions}: the source has no times, so there is no order")
        train = rows.filter(np.equal(rows["split"].to_numpy(), schemas.TRAIN))
        users, items, times = (train[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
        keys = users.astype(np.int64) * split.n_items + items
        order = np.lexsort((times, keys))
        unique, first = np.unique(keys[order], return_index=True)
        own = self.pairs.users.astype(np.int64) * split.n_items + self.pairs.items
        self._order = np.argsort(times[order][first][np.searchsorted(unique, own)], kind="stable")

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return self._order


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    steps: Annotated[list[int], typer.Option()] = [0, 264, 528, 1056],  # noqa: B006
    seeds: int = 3,
) -> None:
    """Pre-train for each number of steps, train AlignRec for one epoch and print its recall on valid."""
    given, layout, folder = opened(dataset, params, root, "single_pass")
    features = given[Released].features
    sets = given[BEiT3].model_copy(update={"sets": [features]})
    settings = model_settings(given, RELEASED).model_copy(update={"epochs": 1, "batch_size": 128})
    for number in steps:
        pretrain = given[Pretrain].model_copy(update={"size": "small", "steps": number})
        own = given.having(pretrain, sets)
        branch = branched(layout, folder / str(number), own, ["pretrain", "beit3", "graph"])
        data, recalls = inputs.read_inputs(branch, features), []
        for seed in range(seeds):
            drawn = seed_for("single pass", dataset, seed)
            fitted = fit(MODELS[RELEASED], *data, settings, drawn, sampler=lambda split: ByTime(split, layout))
            recalls.append(fitted.valid[f"recall@{CUTOFF}"])
        print(f"{number} steps: valid Recall@{CUTOFF} {np.mean(recalls):.4f} ± {np.std(recalls):.4f}")


if __name__ == "__main__":
    typer.run(main)
