"""Geometry of AlignRec trained without each loss (docs/study.md).

Command: `python -m experiments.geometry sample`.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as nnf
import typer
from torch import Tensor

from alignrec.pipeline.evaluation.benchmark.cell import VALID_RECALL
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.report.table import (
    HEADLINE_RECALL,
    Table,
    Value,
    describe_seeds,
    format_figure,
)
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import opened, record

LOSSES = ("cca", "reg", "uia")
NOTE = (
    "Every arm at the same epochs, {epochs} of training; {seeds}. Rank: effective rank of item "
    "vectors; energy: share of their squared length in one direction; content id: mean cosine of "
    "an item's two vectors; user item: of train pairs; kept: linear CKA of content vectors and "
    "features."
)


@torch.no_grad()
def measure(
    model: AlignRec, features: np.ndarray, users: np.ndarray, items: np.ndarray
) -> dict[str, float]:
    """Return measures of AlignRec's item vectors.

    `features` are those before training, float32 [I, F], and users and items the train pairs, int [P].
    """
    # as in NOTE; ranks are 1 .. D
    id_user, id_item = model.id_branch()
    mm_user, mm_item = model.content_branch()
    user, item = id_user + mm_user, id_item + mm_item
    pairs = nnf.cosine_similarity(
        user[torch.from_numpy(users).long()], item[torch.from_numpy(items).long()]
    )
    ids = id_item.cpu().numpy()
    content = mm_item.cpu().numpy()
    content_spectrum = projections.spectrum(content)
    ids_shape = projections.measure_shape(ids, projections.spectrum(ids))
    content_shape = projections.measure_shape(content, content_spectrum)
    features_spectrum = projections.spectrum(features)
    return {
        "id_rank": ids_shape.effective_rank,
        "content_rank": content_shape.effective_rank,
        "id_energy": leading_share(ids),
        "content_energy": leading_share(content),
        "content_id": float(nnf.cosine_similarity(mm_item, id_item).mean()),
        "user_item": float(pairs.mean()),
        "kept": projections.linear_cka(content, features, content_spectrum, features_spectrum),
    }


def leading_share(features: np.ndarray) -> float:
    """Return the share of energy in one direction of uncentred features [I, F], 1 / F to 1."""
    products = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), 8192):
        rows = features[start : start + 8192].astype(np.float64)
        products += rows.T @ rows
    energy = np.clip(np.linalg.eigvalsh(products), 0, None)
    return float(energy[-1] / energy.sum()) if energy.sum() > 0 else 1.0


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    epoch: Annotated[list[int], typer.Option(min=1)] = [1, 4, 12],  # noqa: B006
    seeds: int = 3,
) -> None:
    """Train AlignRec with all losses and without each, as long as the last epoch, and record the
    measures of each epoch.
    """
    parameters, layout, _ = opened(dataset, params, root, "geometry")
    data = inputs.read_inputs(layout, parameters[TrainSettings].features)
    settings = model_settings(parameters, RELEASED)
    # no arm stops early, which would compare epochs that differ
    settings = settings.model_copy(update={"epochs": max(epoch), "patience": max(epoch)})

    rows: list[list[Value]] = []
    names: list[str] = []
    for loss in ("", *LOSSES):
        changed = settings.model_copy(update={loss: 0.0} if loss else {})
        by_seed = []
        for number in range(seeds):
            seed = seed_for("benchmark", dataset, RELEASED, number)
            by_seed.append(measure_epochs(data, changed, seed))
            print(f"without {loss or 'nothing'}, seed {number}", flush=True)
        names = [*by_seed[0][0]]
        for at in sorted({*epoch}):
            figures = [
                mean_and_sd([measures[at - 1][name] for measures in by_seed]) for name in names
            ]
            cells = [format_figure(figure, ".3g") for figure in figures]
            rows.append([loss or "nothing", str(at), *cells])

    columns = [name.replace("_", " ") for name in names]
    note = NOTE.format(epochs=max(epoch), seeds=describe_seeds([seeds]))
    record(layout, "geometry", Table.of("", note, ("without", "epoch", *columns), rows))


def measure_epochs(data: inputs.TrainingData, settings: Train, seed: int) -> list[dict[str, float]]:
    """Train AlignRec and return recall on valid and the measures of each epoch."""
    fitted, measures = train_observed(data, settings, seed)
    columns = []
    for line, measured in zip(fitted.history, measures, strict=True):
        columns.append({f"valid {HEADLINE_RECALL}": line[VALID_RECALL], **measured})
    return columns


def train_observed(
    data: inputs.TrainingData, settings: Train, seed: int
) -> tuple[Fit, list[dict[str, float]]]:
    """Train AlignRec and return the measures of each epoch."""
    assert data.features is not None
    features = np.ascontiguousarray(data.features, np.float32)
    train = data.split.train
    measures: list[dict[str, float]] = []

    class Observed(AlignRec):
        def forward(self) -> tuple[Tensor, Tensor]:
            if not self.training:  # called once per epoch, to rank valid
                measures.append(measure(self, features, train.users, train.items))
            return super().forward()

    return fit(Observed, *data, settings, seed), measures


if __name__ == "__main__":
    typer.run(main)
