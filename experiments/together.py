"""AlignRec and BEiT3 as one network, trained jointly through CLS. I items, F width of CLS."""

from typing import Any

import numpy as np
import torch

from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import FIRST_POSITION
from alignrec.pipeline.beit3.corpus import Corpus, Task, make_batch
from alignrec.pipeline.beit3.losses import NO_MASKING, encode_items
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.tokenizer import Tokenizer, split_text
from alignrec.pipeline.features.batching import Items, texts_and_images
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.images.decode import decode_squares
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Inputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.schemas import MODALITIES


class Encoder:
    """BEiT3 with the items of a dataset."""

    def __init__(self, layout: Layout) -> None:
        self.network = stored.load_network(layout.encoder)
        items = Items.of(layout)
        self.items, config = len(items.ids), self.network.config
        texts, images = texts_and_images(items.read(range(self.items), MODALITIES))
        there = np.array([image is not None for image in images])
        whole = Tokenizer(layout.encoder.tokenizer.read_bytes()).encode(texts)
        ids = [split_text(own, config.positions - FIRST_POSITION, 1)[0] for own in whole]
        pixels = decode_squares([image for image in images if image is not None], config.image)
        first, lengths = np.arange(len(ids) + 1), np.array([*map(len, whole)])
        corpus = Corpus(ids, first, lengths, np.where(there, np.cumsum(there) - 1, -1), pixels)
        device = pick_device(mps=False)
        codes = np.zeros((len(pixels), config.patches), np.int64)  # unused, as nothing is masked
        self._task = Task(corpus, codes, 0, Pretrain(batch_size=128), 0, device)
        self.network.to(device)
        self._known = torch.from_numpy(np.isin(np.arange(len(texts)), corpus.usable)).to(device)[:, None]

    def some(self, items: np.ndarray) -> torch.Tensor:
        """Return CLS of items with gradient, zeros for items without image and text."""
        return self.network.summary(*make_batch(self._task, items, NO_MASKING, 0).inputs) * self._known[items]

    def all(self) -> np.ndarray:
        return encode_items(self.network, self._task, np.arange(self.items)) * self._known.cpu().numpy()


class Together(AlignRec):
    """AlignRec on the features of an encoder that is trained with it."""

    # an epoch encodes every item once with gradient, a share per step, which uses the latest features of all others

    def __init__(self, given: Inputs, params: AlignRecParams, encoder: Encoder, graph: Graph, rate: float) -> None:
        super().__init__(given, params)
        self.encoder, self.network, self.graph, self.rate = encoder, encoder.network, graph, rate
        self._table = self.features.data
        steps = -(-len(given.split.train) // (params.batch_size * params.accumulate))
        self._share = -(-encoder.items // steps)

    def groups(self) -> list[dict[str, Any]]:
        inner = [*self.network.parameters()]
        own = [p for p in self.parameters() if p.requires_grad and p not in {*inner}]
        return [{"params": own, "rate": 1.0}, {"params": inner, "rate": self.rate}]

    @property
    def content(self) -> torch.Tensor:
        return self._table  # [I, F]; rows encoded in this step have gradients

    @property
    def target(self) -> torch.Tensor:
        return self._table.detach()

    def start_epoch(self) -> None:
        self._order = iter(torch.randperm(self.encoder.items).split(self._share))

    def tables(self) -> tuple[torch.Tensor, ...]:
        self._table = self.features.data
        if (items := next(self._order, None)) is not None:
            fresh = self.encoder.some(items.numpy())
            self._table = self.features.index_copy(0, items.to(fresh.device), fresh)
            self.features.data[items] = fresh.detach()
        return super().tables()

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        # before valid is ranked, encode all items and rebuild the item graph
        if not self.training:
            vectors = self.encoder.all()
            self.features.data.copy_(torch.from_numpy(vectors))
            edges = neighbours_by_params(vectors, self.graph)
            graph = adjacency.item_graph(edges, len(vectors), self.params.self_neighbour, self.params.symmetric)
            self._table = self.features.data
            self.item_item = Sparse(graph, self._table.device)
        return super().forward()
