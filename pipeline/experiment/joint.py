"""AlignRec and its encoder trained together: AlignRec's losses reach BEiT3 through the features.

Each epoch encodes every item once with gradient, a share of them per step; a step reads the latest features of the
others. After each epoch all items are encoded again, the item graph is rebuilt, and the probes are asked.
Letters: I items, F width of CLS, B items of a step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import schemas
from pipeline import io
from pipeline.beit3 import stored
from pipeline.beit3.config import FIRST_POSITION
from pipeline.beit3.tokenizer import BOS, EOS, Tokenizer
from pipeline.encode import batching
from pipeline.errors import UserError
from pipeline.experiment.cell import Cell, Trained, Watch
from pipeline.experiment.pairs import Stored, end
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.images.pixels import squares
from pipeline.models import adjacency
from pipeline.models.alignrec import AlignRec, AlignRecParams
from pipeline.models.base import Inputs
from pipeline.ops import whitening
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.device import pick
from pipeline.ops.sparse import Sparse
from pipeline.pretrain.batches import Task, batch
from pipeline.pretrain.corpus import Corpus
from pipeline.pretrain.held_out import NO_MASKING, features
from pipeline.pretrain.losses import summary
from pipeline.pretrain.params import Pretrain
from pipeline.probe import asking
from pipeline.probe.questions import Questions
from pipeline.probe.registry import PROBES
from pipeline.train.loop import fit

PROBED = ("zero_shot", "item_cf", "content_knn")  # probes that are asked of the features
AT = 20  # cutoff of the probes
WIDTH = 128  # of processed features, at most: as `probe.width` by default
TOGETHER = 128  # items that are encoded at a time where no gradient is kept


@dataclass(frozen=True, kw_only=True)
class Joint(Stored):
    """Data for AlignRec and its encoder, whose weights are in the layout."""

    rate: float  # learning rate of the encoder, as a share of AlignRec's
    graph: Graph  # how the item graph is built after each epoch

    def files(self) -> list[Path]:
        return [*super().files(), self.layout.items, *io.shards(self.layout.images, "images"),
                *self.layout.encoder.present()]  # fmt: skip

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"rate": self.rate}

    def code(self, model: str) -> tuple[list[Path], list[str]]:
        sources, modules = super().code(model)
        ours = [__name__, "pipeline.pretrain.held_out", *(PROBES.module(name) for name in PROBED)]
        return sources, [*modules, *ours]

    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        split, encoder, asked = self.read()[0].split, Encoder(self), asking.neighbours(self.layout, PROBED)
        start, graph, rate = encoder.all(), self.graph, self.rate
        seen: list[dict[str, float]] = []

        class Taught(Together):
            def __init__(self, inputs: Inputs, params: AlignRecParams) -> None:
                super().__init__(inputs, params, encoder, graph, rate)

            def forward(self) -> tuple[Tensor, Tensor]:
                if not self.training:  # the loop ranks valid with it, once an epoch
                    self.renew()
                    seen.append(hit_rates(asked, self.features.cpu().numpy()))
                return super().forward()

        settings = cell.settings.model_copy(update={"mode": "frozen"})
        edges = neighbours.of_params(start, graph)
        fitted = fit(Taught, split, start, edges, settings, cell.seed, watch, checkpoint)  # type: ignore[arg-type]
        lines = [{"epoch": line["epoch"], **hits} for line, hits in zip(fitted.history, seen, strict=True)]
        return end(fitted, split, lines)


class Encoder:
    """BEiT3 and its items; the network is the only state."""

    def __init__(self, data: Stored) -> None:
        files = data.layout.encoder
        if files.word_pieces.is_file():
            raise UserError("study.joint: trains BEiT3 of other sizes, not pretrain.size mini; leave study.joint out")
        self.network = stored.network(files)
        config = self.network.config
        texts = io.read_table(data.layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
        images = batching.read_images(io.shards(data.layout.images, "images"), 0, len(texts))
        there = [image for image in images if image is not None]
        row = np.cumsum([image is not None for image in images]) - 1
        row[[image is None for image in images]] = -1
        ids = [np.array([BOS, EOS])] * len(texts)
        if files.tokenizer.is_file():
            ids = Tokenizer(files.tokenizer.read_bytes()).encode(texts, config.positions - FIRST_POSITION)
        pixels = squares(there, config.image) if there else np.empty((0, config.image, config.image, 3), np.uint8)
        codes = np.zeros((len(pixels), config.patches), np.int64)  # nothing is masked, so none is predicted
        self._task = Task(Corpus(ids, row, pixels), codes, 0, Pretrain(batch_size=TOGETHER), 0, pick(mps=False))
        self.network.to(self._task.device)
        corpus = self._task.corpus
        self._known = torch.from_numpy(corpus.has_text | corpus.has_image).to(self._task.device)[:, None]
        self.items = len(texts)

    def some(self, items: np.ndarray) -> Tensor:
        """Return CLS of items, int64 [B], with gradient: [B, F]; zeros without image and text."""
        return summary(self.network, batch(self._task, items, NO_MASKING, 0).inputs) * self._known[items]

    def all(self) -> np.ndarray:
        return features(self.network, self._task, np.arange(self.items)) * self._known.cpu().numpy()


class Together(AlignRec):
    """AlignRec on the features of an encoder; each step re-encodes some of them."""

    def __init__(self, inputs: Inputs, params: AlignRecParams, encoder: Encoder, graph: Graph, rate: float) -> None:
        super().__init__(inputs, params)
        self.encoder, self.network, self.graph, self.rate = encoder, encoder.network, graph, rate
        self._device, self._table = inputs.device, self.features.data
        steps = -(-len(inputs.split.train) // (params.batch_size * params.accumulate))
        self._share = -(-encoder.items // steps)  # each item once an epoch
        self._order: Iterator[Tensor] = iter(())

    def groups(self) -> list[dict[str, Any]]:
        inner = {*self.network.parameters()}
        own = [p for p in self.parameters() if p.requires_grad and p not in inner]
        return [{"params": own, "rate": 1.0}, {"params": [*self.network.parameters()], "rate": self.rate}]

    @property
    def content(self) -> Tensor:
        """The current features, [I, F]; those of a step carry gradient."""
        return self._table

    @property
    def target(self) -> Tensor:
        return self._table.detach()

    def start_epoch(self) -> None:
        self._order = iter(torch.randperm(self.encoder.items).split(self._share))

    def tables(self) -> tuple[Tensor, ...]:
        """Return AlignRec's tables after encoding this step's share of the items."""
        items, self._table = next(self._order, torch.arange(0)), self.features.data
        if len(items):
            fresh = self.encoder.some(items.numpy())
            self._table = self.features.index_copy(0, items.to(self._device), fresh)
            self.features.data[items] = fresh.detach()
        return super().tables()

    def renew(self) -> None:
        vectors = self.encoder.all()
        self.features.data.copy_(torch.from_numpy(vectors))
        self._table = self.features.data
        edges = neighbours.of_params(vectors, self.graph)
        item_graph = adjacency.item_graph(edges, len(vectors), self.params.self_neighbour, self.params.symmetric)
        self.item_item = Sparse(item_graph, self._device)


def hit_rates(asked: Mapping[str, Questions], vectors: np.ndarray) -> dict[str, float]:
    """Return probe -> hit rate at AT of processed features [I, F]."""
    found = asking.answers(asked, [("", whitening.processed(vectors, WIDTH))], [AT])
    return {name: float(hits[""].mean()) for name, hits in found.items()}
