"""AlignRec with the geometry of its vectors measured after each epoch.

Letters: P train interactions, D width of embeddings.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from pipeline.experiment.cell import Cell, Trained, Watch
from pipeline.experiment.pairs import Stored, end
from pipeline.models.alignrec import AlignRec
from pipeline.ops import shapes
from pipeline.ops.checkpoint import Checkpoint
from pipeline.train.loop import fit


@dataclass(frozen=True)
class Observed(Stored):
    """Data for AlignRec with a content branch."""

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"observed": True}

    def code(self, model: str) -> tuple[list[Path], list[str]]:
        files, modules = super().code(model)
        return files, [*modules, __name__, shapes.__name__]

    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        data, parts = self.read()
        seen: list[dict[str, Any]] = []

        class Seen(AlignRec):
            def forward(self) -> tuple[Tensor, Tensor]:
                if not self.training:  # the loop ranks valid with it, once an epoch
                    seen.append(measure_geometry(self, data.split.train.users, data.split.train.items))
                return super().forward()

        fitted = fit(Seen, *data, cell.settings, cell.seed, watch, checkpoint, parts)  # type: ignore[arg-type]
        lines = [
            line | {"epoch": old["epoch"], "recall@20": old["valid_recall@20"]}
            for line, old in zip(seen, fitted.history, strict=True)
        ]
        return end(fitted, data.split, lines)


@torch.no_grad()
def measure_geometry(model: AlignRec, users: np.ndarray, items: np.ndarray) -> dict[str, float]:
    """Return the shape of AlignRec's item vectors, with users and items of the train pairs, int [P].

    id_rank, content_rank: effective rank, 1 .. D; id_energy, content_energy: share of squared length in one direction;
    content_id: mean cosine of an item's two vectors; user_item: mean cosine of train pairs; kept: linear CKA of the
    content vectors with the given features.
    """
    id_user, id_item = model.id_branch()
    mm_user, mm_item = model.content_branch()
    user, item = id_user + mm_user, id_item + mm_item
    pairs = nnf.cosine_similarity(user[torch.from_numpy(users).long()], item[torch.from_numpy(items).long()])
    ids, content, given = (x.cpu().numpy() for x in (id_item, mm_item, model.fixed))
    spectra = [shapes.spectrum(x) for x in (ids, content, given)]
    return {
        "id_rank": shapes.shape(ids, spectra[0]).effective_rank,
        "content_rank": shapes.shape(content, spectra[1]).effective_rank,
        "id_energy": shapes.leading(ids),
        "content_energy": shapes.leading(content),
        "content_id": float(nnf.cosine_similarity(mm_item, id_item).mean()),
        "user_item": float(pairs.mean()),
        "kept": shapes.linear_cka(content, given, spectra[1], spectra[2]),
    }
