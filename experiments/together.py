"""AlignRec and BEiT3 as one network, trained jointly through CLS. I items, F width of CLS."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import FIRST_POSITION, BEiT3Config
from alignrec.pipeline.beit3.corpus import Corpus, PretrainTask, make_batch
from alignrec.pipeline.beit3.losses import NO_MASKING, encode_items
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.tokenizer import Tokenizer, split_text
from alignrec.pipeline.features.batching import ItemContent, texts_and_images
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.images.decode import decode_squares
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.schemas import MODALITIES
from experiments.masked_modelling import MaskedModelling

BATCH_SIZE = 128  # items per forward pass without gradient


class Encoder:
    """BEiT3 with the items of a dataset."""

    def __init__(self, layout: Layout) -> None:
        self.network = stored.load_network(layout.encoder)
        self.network.to(pick_device(mps=False))
        self._task = read_task(layout, self.network.config)

        self.n_items = len(self._task.corpus.row)
        has_content = np.isin(np.arange(self.n_items), self._task.corpus.usable)
        self._has_content = torch.from_numpy(has_content).to(self._task.device)[:, None]

    def encode(self, items: np.ndarray) -> Tensor:
        """Return CLS of items with gradient, zeros for items without image and text."""
        inputs = make_batch(self._task, items, NO_MASKING, 0).inputs
        return self.network.summary(*inputs) * self._has_content[items]

    def encode_all(self) -> np.ndarray:
        """Return CLS of all items without gradient, float32 [I, F]."""
        vectors = encode_items(self.network, self._task, np.arange(self.n_items))
        return vectors * self._has_content.cpu().numpy()


def read_task(layout: Layout, config: BEiT3Config) -> PretrainTask:
    """Read the first part of each text and all images as inputs of the network."""
    items = ItemContent.of(layout)
    content = items.read(range(len(items.ids)), MODALITIES)
    texts, images = texts_and_images(content)

    all_ids = Tokenizer(layout.encoder.tokenizer.read_bytes()).encode(texts)
    max_tokens = config.positions - FIRST_POSITION
    first_parts = [split_text(ids, max_tokens, 1)[0] for ids in all_ids]
    lengths = np.array([len(ids) for ids in all_ids])

    pixels = decode_squares([image for image in images if image is not None], config.image)
    has_image = np.array([image is not None for image in images])
    pixel_rows = np.where(has_image, np.cumsum(has_image) - 1, -1)

    corpus = Corpus(first_parts, np.arange(len(texts) + 1), lengths, pixel_rows, pixels)
    unused_codes = np.zeros((len(pixels), config.patches), np.int64)  # nothing is masked
    device = pick_device(mps=False)
    return PretrainTask(corpus, unused_codes, 0, Pretrain(batch_size=BATCH_SIZE), 0, device)


class Together(AlignRec):
    """AlignRec on the features of an encoder that is trained with it.

    A step adds MIM and MLM of a batch of items to AlignRec's losses; the encoder follows the sum
    with the optimiser of stage `pretrain`, and the rest with AlignRec's. An epoch encodes every
    item once with gradient, a share per step, which uses the latest features of all others. Before
    valid is ranked, all items are encoded and the item graph is rebuilt.
    """

    def __init__(
        self,
        inputs: Inputs,
        params: AlignRecParams,
        encoder: Encoder,
        graph: Graph,
        masked: MaskedModelling,
    ) -> None:
        assert params.mode == "frozen"  # in other modes, `features` is a parameter
        super().__init__(inputs, params)
        self.encoder = encoder
        self.network = encoder.network  # registers its weights, so that the best epoch's are kept
        self.graph = graph
        self.masked = masked
        self.rounded = None  # a copy of the first features, which no gradient leaves

        steps = -(-len(inputs.split.train) // (params.batch_size * params.accumulate))
        self._items_per_step = -(-encoder.n_items // steps)
        self._item_batches: Iterator[Tensor] = iter(())
        self._has_gradients = False  # of the encoder, not followed yet

    def groups(self) -> list[dict[str, Any]]:
        ids = {id(parameter) for parameter in self.network.parameters()}
        recommender = [parameter for parameter in self.parameters() if id(parameter) not in ids]
        return [{"params": recommender, "rate": 1.0}]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self._step_encoder()
        self._has_gradients = True
        return super().loss(batch) | self.masked.terms()

    def start_epoch(self) -> None:
        order = torch.randperm(self.encoder.n_items)
        self._item_batches = iter(order.split(self._items_per_step))

    def tables(self) -> tuple[Tensor, ...]:
        self.features = self._encode_next_items()
        return super().tables()

    def forward(self) -> tuple[Tensor, Tensor]:
        if not self.training:
            self._step_encoder()
            self._encode_all_items()
        return super().forward()

    def _step_encoder(self) -> None:
        """Follow the gradients of the previous loss, which are complete by now."""
        if self._has_gradients:
            self.masked.step()
        self._has_gradients = False

    def _encode_next_items(self) -> Tensor:
        """Return the latest features, [I, F], with gradient for the items of this step."""
        latest = self.features.detach()
        items = next(self._item_batches, None)
        if items is None:
            return latest

        encoded = self.encoder.encode(items.numpy())
        return latest.index_copy(0, items.to(latest.device), encoded)

    def _encode_all_items(self) -> None:
        vectors = self.encoder.encode_all()
        device = self.features.device
        self.features = torch.from_numpy(vectors).to(device)

        edges = neighbours_by_params(vectors, self.graph)
        self.item_item = Sparse(adjacency.item_graph(edges, len(vectors)), device)


def bind_encoder(encoder: Encoder, graph: Graph, masked: MaskedModelling) -> type[AlignRec]:
    """Return `Together` with its encoder, as a model that `fit` trains."""

    class Joint(Together):
        def __init__(self, inputs: Inputs, params: AlignRecParams) -> None:
            super().__init__(inputs, params, encoder, graph, masked)

    return Joint
