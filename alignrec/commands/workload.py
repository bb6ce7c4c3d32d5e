"""What stages have to do for a dataset, from which `estimate` computes their time, memory and disk.

Constants were measured on `sample` and Baby, on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from alignrec.commands.size import Size
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, BEiT3Config, count_flops
from alignrec.pipeline.beit3.params import VOCAB, BEiT3Sets, Pretrain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import kind_of
from alignrec.pipeline.features.kinds.linear import CHOICES, COLD_DRAWS
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.features.profiles import COLD_SHARE, MAX_SCORES, MAX_USERS, MIN_USERS
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.base import Untrained
from alignrec.pipeline.models.ease import Closed
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.params import Parameters

PROCESS_BYTES = 5e8  # memory of a stage without torch
FLOAT_BYTES = 4
LOG_BYTES = 40  # of an interaction, in memory and on disk

# MiniLM and the CNN
FLOPS_PER_IMAGE = 8e8
FLOPS_PER_PIECE = 2.1e7
JOINED_WIDTH = 1664

# fraction of the GEMM rate: BEiT3 by size, other networks
GEMM_SHARE_OF_SIZE = {"small": 0.15, "mini": 0.35}
GEMM_SHARE = 0.5
# shape with the FLOPs of size mini: CLS and one patch account for its two image tokens
MINI = BEiT3Config(
    image=1, patch=1, vocab=8000, width=384, layers=6, heads=12, ffn=1536, positions=256
)
PUBLISHED_CODES = 8192  # codes of a published VQ-KD tokenizer

WITHOUT_GRAPH = ("bpr", "vbpr")  # trained models
TYPICAL_BEST_EPOCH = 40
# of models with content: the higher the learning rate, the sooner comes the best epoch
BEST_EPOCH_TIMES_RATE = 0.06
TRAIN_SHARE = 0.75  # of the interactions
VALID_SHARE = 0.1
SETUP_SECONDS = 0.5  # of a training, in a process that runs
SECONDS_PER_STEP = 0.007  # without a graph
GRAPH_OPERATIONS_PER_SECOND = 1.4e10
# per interaction and number of its vectors: of LightGCN, two products a layer in both passes, over
# the train interactions; of models with content, whose other graphs count with them
OPERATIONS_PER_LAYER = 8 * TRAIN_SHARE
OPERATIONS_PER_EDGE = 40
SCORES_PER_SECOND = 7e7
# items for a user, by the probes, of two sets side by side
RANKED_PER_SECOND = 2e8
FIT_SECONDS = 0.12  # of principal components
FIT_SHARE = 0.2  # of the GEMM rate: float64 on one thread
WRITTEN_PER_SECOND = 1e8  # bytes of vectors


@dataclass(frozen=True)
class Workload:
    """A dataset, its parameters and the speed of a machine."""

    params: Parameters
    dataset: str
    size: Size
    gemm: float  # float32 matrix product rate of this machine, FLOP/s
    downloads: float = 0.0  # bytes of the raw files whose size servers report
    # key of params.yaml -> parameters of the third-party model that it names, if the Hub knows them
    on_hub: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def sets(self) -> list[str]:
        return DeclaredSets(self.params, self.dataset).names()

    @cached_property
    def encoder_kinds(self) -> list[str]:
        return [kind_of(self.params.encoders, name) for name in self.params[Encode].encoders]

    @cached_property
    def shape(self) -> BEiT3Config:
        pretrain = self.params[Pretrain]
        vocab = BEiT3Config().vocab if pretrain.tokenizer else VOCAB
        codes = PUBLISHED_CODES if pretrain.vqkd else pretrain.codes
        shape = MINI if pretrain.size == "mini" else BEIT3_CONFIGS[pretrain.size]
        return replace(shape, vocab=vocab, codes=codes)

    @cached_property
    def settings(self) -> Train:
        """Settings of the released recommender."""
        return self.params[TrainSettings].resolved()

    @property
    def vector_bytes(self) -> float:
        """Bytes of one feature set of the usual width."""
        return FLOAT_BYTES * self.size.items * JOINED_WIDTH

    @property
    def log_bytes(self) -> float:
        return LOG_BYTES * self.size.interactions

    @property
    def embedding_bytes(self) -> float:
        """Bytes of the released recommender's users and items."""
        return FLOAT_BYTES * (self.size.users + self.size.items) * self.settings.dim

    @property
    def training_bytes(self) -> float:
        """Memory of one training."""
        return PROCESS_BYTES + 3 * self.vector_bytes + 12 * self.embedding_bytes + self.log_bytes

    @property
    def seconds_per_product(self) -> float:
        """Seconds of one scalar product of two vectors."""
        return JOINED_WIDTH / self.gemm

    @property
    def frozen_seconds(self) -> float:
        operations_per_item = FLOPS_PER_IMAGE + FLOPS_PER_PIECE * self.size.pieces
        return self.size.items * operations_per_item / (GEMM_SHARE * self.gemm)

    @property
    def judged_users(self) -> int:
        """Users that are drawn to compare forms of a feature set."""
        drawn = max(MIN_USERS, MAX_SCORES // max(1, self.size.items))
        return min(self.size.users, MAX_USERS, drawn)

    def cold_ranks(self, draws: int, share: float = 1.0) -> float:
        """Return how often all items are ranked where, in each draw, the cold ones alone are.

        `share` is the fraction of the interactions whose items are to be found.
        """
        targets = share * self.size.interactions * self.judged_users / max(1, self.size.users)
        return draws * COLD_SHARE * (self.judged_users + COLD_SHARE * targets)

    @property
    def write_seconds(self) -> float:
        """Seconds to make a set of vectors of other sets, and write it."""
        return 0.1 + self.vector_bytes / WRITTEN_PER_SECOND

    @property
    def linear_seconds(self) -> float:
        """Seconds to fit `linear` in each form that validation chooses from."""
        ranked = self.judged_users + self.cold_ranks(COLD_DRAWS, VALID_SHARE)
        per_choice = FIT_SECONDS + 2 * ranked * self.size.items / RANKED_PER_SECOND
        moments = 4 * self.size.items * JOINED_WIDTH**2 / (FIT_SHARE * self.gemm)
        return moments + len(CHOICES) * per_choice

    def kind_of_set(self, name: str) -> str:
        return str(DeclaredSets(self.params, self.dataset).definition_of(name)["kind"])

    def beit3_seconds(self, image: bool = True, text: bool = True, chunks: int = 1) -> float:
        """Estimate a forward pass over all items, with texts split into at most `chunks` parts."""
        pretrain = self.params[Pretrain]
        max_tokens = self.params[BEiT3Sets].max_tokens or pretrain.max_tokens
        pieces = self.size.pieces if text else 0

        # the image is encoded again with each part of the text
        parts = min(chunks, max(1, math.ceil(pieces / max_tokens)))
        pieces_per_part = min(math.ceil(pieces / parts), max_tokens)
        operations = parts * count_flops(self.shape, image, pieces_per_part)

        share = GEMM_SHARE_OF_SIZE.get(pretrain.size, GEMM_SHARE)
        return self.size.items * operations / (share * self.gemm)

    def training_seconds(self, model: str, settings: Train) -> float:
        size = self.size
        ranking = size.users * size.items / SCORES_PER_SECOND
        if issubclass(MODELS[model], Closed):
            return SETUP_SECONDS + 3 * size.items**3 / self.gemm + ranking
        if issubclass(MODELS[model], Untrained):
            return SETUP_SECONDS + ranking

        content = MODELS[model].needs
        # a step propagates over the graph in both passes
        edges = 0.0 if model in WITHOUT_GRAPH else size.interactions * settings.dim
        per_edge = (
            OPERATIONS_PER_EDGE
            if content
            else OPERATIONS_PER_LAYER * getattr(settings, "layers", 1)
        )
        step = SECONDS_PER_STEP + per_edge * edges / GRAPH_OPERATIONS_PER_SECOND
        if content:  # models project all items
            step += 6 * size.items * JOINED_WIDTH * settings.dim / self.gemm

        batches = math.ceil(TRAIN_SHARE * size.interactions / settings.batch_size)
        best_epoch = float(TYPICAL_BEST_EPOCH)
        if content:
            best_epoch = min(best_epoch, BEST_EPOCH_TIMES_RATE / settings.lr)
        epochs = min(settings.epochs, best_epoch + settings.patience)
        return SETUP_SECONDS + epochs * (batches * step + ranking)
