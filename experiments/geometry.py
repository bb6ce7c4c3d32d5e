"""Geometry of AlignRec trained without each loss (docs/study.md): `python -m experiments.geometry sample`."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
import typer
from torch import Tensor

from alignrec.pipeline.benchmark.settings import model_settings
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.train import inputs
from alignrec.pipeline.train.loop import fit
from alignrec.pipeline.train.params import Released
from experiments.shared import opened

LOSSES = ("cca", "reg", "uia")


@torch.no_grad()
def measure(model: AlignRec, users: np.ndarray, items: np.ndarray) -> dict[str, float]:
    """Return measures of AlignRec's item vectors, given users and items of the train pairs, int [P] each."""
    # rank: effective rank, 1 .. D; energy: share of squared length in the leading direction; content_id: mean cosine of
    # an item's two vectors; user_item: mean cosine of train pairs; kept: linear CKA of content vectors with features
    id_user, id_item = model.id_branch()
    mm_user, mm_item = model.content_branch()
    user, item = id_user + mm_user, id_item + mm_item
    pairs = nnf.cosine_similarity(user[torch.from_numpy(users).long()], item[torch.from_numpy(items).long()])
    ids, content, given = (x.cpu().numpy() for x in (id_item, mm_item, model.fixed))
    spectra = [linalg.spectrum(x) for x in (ids, content, given)]
    return {
        "id_rank": linalg.measure_shape(ids, spectra[0]).effective_rank,
        "content_rank": linalg.measure_shape(content, spectra[1]).effective_rank,
        "id_energy": leading_share(ids),
        "content_energy": leading_share(content),
        "content_id": float(nnf.cosine_similarity(mm_item, id_item).mean()),
        "user_item": float(pairs.mean()),
        "kept": linalg.linear_cka(content, given, spectra[1], spectra[2]),
    }


def leading_share(features: np.ndarray) -> float:
    """Return the share of energy in the leading direction of uncentred features [I, F], 1 / F .. 1."""
    products = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), 8192):
        rows = features[start : start + 8192].astype(np.float64)
        products += rows.T @ rows
    energy = np.clip(np.linalg.eigvalsh(products), 0, None)
    return float(energy[-1] / energy.sum()) if energy.sum() > 0 else 1.0


def main(
    dataset: str, params: Path = Path("params.yaml"), root: Path = Path("outputs"), epochs: int | None = None
) -> None:
    """Train AlignRec with all losses and without each, and print the measures of every epoch."""
    own, layout, _ = opened(dataset, params, root, "geometry")
    data, settings = inputs.read_inputs(layout, own[Released].features), model_settings(own, RELEASED)
    settings = settings.model_copy(update={"epochs": epochs or settings.epochs, "patience": epochs or settings.epochs})
    train = data.split.train
    for without in ("", *LOSSES):
        seen: list[dict[str, float]] = []

        class Observed(AlignRec):
            def forward(self) -> tuple[Tensor, Tensor]:
                if not self.training:  # called once per epoch, to rank valid
                    seen.append(measure(self, train.users, train.items))  # noqa: B023
                return super().forward()

        changed = settings.model_copy(update={without: 0.0} if without else {})
        fitted = fit(Observed, *data, changed, seed_for("benchmark", dataset, RELEASED, 0))
        for line, shape in zip(fitted.history, seen, strict=True):
            figures = ", ".join(f"{name} {value:.4f}" for name, value in shape.items())
            recall = f"valid Recall@20 {line['valid_recall@20']:.4f}"
            print(f"without {without or 'nothing'}, epoch {line['epoch']}: {recall}, {figures}")


if __name__ == "__main__":
    typer.run(main)
