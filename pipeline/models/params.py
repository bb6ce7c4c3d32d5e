"""Training parameters shared by recommenders; those of a single model are in its own file."""

from typing import Annotated, ClassVar

from pydantic import Field

from alignrec.pipeline.runtime.section import (
    Layers,
    Positive,
    Rate,
    Section,
    Seed,
    Share,
    Threads,
    Weight,
    Width,
)

DEFAULT_FEATURE_SET = "beit3"  # default feature set of the released recommender
Decay = Annotated[float, Field(gt=0, le=1)]


class Train(Section):
    """Parameters of the training loop (method.md sections 3, 4)."""

    speed: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    dim: Width = 64
    """embedding width D"""
    batch_size: Positive = 2048
    lr: Rate = 5e-4
    lr_decay: Decay = 0.96
    """factor per 50 epochs, applied smoothly"""
    epochs: Positive = 1000
    """maximum number of epochs"""
    patience: Positive = 30
    """evaluations without a better valid Recall@20 before stopping"""
    falling: Share | None = None
    """beyond `patience`, continue while that many epochs cut the loss by more than this share of
    the first epoch's, see docs/accuracy.md; null: stop, as published"""
    decimals: Annotated[int, Field(ge=0, le=17)] | None = 4
    """decimals of valid Recall@20 when epochs are compared, as published; null: not rounded"""
    compile: bool = False
    """compile steps to CUDA graphs with torch.compile, a minute at the start; GPU only"""
    checkpoint_every: Positive = 10
    """epochs between checkpoints"""
    threads: Threads = 1
    """CPU threads; more are faster on large data, and round differently"""
    seed: Seed = 0


class Accumulating(Train):
    """Training in which several batches can share one propagation over the graph."""

    accumulate: Positive = 1
    """batches per step, which share one propagation, see docs/scale.md; above 1, `compile` has no
    effect"""


class Regularised(Train):
    """Training with an L2 penalty on embeddings."""

    l2: Weight = 1e-4  # weight of the L2 penalty


class Multimodal(Regularised):
    """Training of multimodal recommenders, with the learning rate of the published benchmarks."""

    lr: Rate = 1e-3


class Contrastive(Multimodal):
    """Training with a contrastive loss between views."""

    temperature: Rate = 0.2  # temperature of the contrastive loss


class ItemGraph(Train):
    """Propagation over the user-item graph, as in LightGCN, and over an item graph."""

    layers: Layers = 2  # LightGCN layers over the user-item graph
    item_layers: Layers = 1  # propagations over the item graph; 0: none
