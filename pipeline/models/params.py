"""Parameters that recommenders share in training; those of one model are in its file in pipeline/models/."""

from typing import Annotated, ClassVar

from pydantic import Field

from alignrec.pipeline.config.base import Count, Positive, Rate, Section, Share, Weight

FEATURES = "beit3"  # default feature set of the released recommender
Decay = Annotated[float, Field(gt=0, le=1)]


class Train(Section):
    """The training loop (method.md sections 3, 4)."""

    speed: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    dim: Positive = 64
    """embedding width D"""
    batch_size: Positive = 2048
    lr: Rate = 5e-4
    lr_decay: Decay = 0.96
    """factor per 50 epochs, applied smoothly"""
    epochs: Positive = 1000
    """at most"""
    patience: Positive = 30
    """evaluations without a better valid Recall@20 before stopping"""
    falling: Share | None = None
    """a run out of patience continues while its last `patience` epochs reduced the loss by more than this share of the
    first epoch's, see docs/accuracy.md; null: it stops, as published"""
    decimals: Count | None = 4
    """decimals of valid Recall@20 when epochs are compared, as published; null: not rounded"""
    compile: bool = False
    """compile a step's small kernels to CUDA graphs by torch.compile, which takes a minute at the start; GPU only"""
    checkpoint_every: Positive = 10
    """epochs between checkpoints"""
    threads: Positive = 1
    """CPU threads of the train stage; more are faster on large data, and round differently"""
    seed: int = 0


class Accumulating(Train):
    """Training in which several batches can share one propagation over the graph."""

    accumulate: Positive = 1
    """batches whose gradients are added up before a step, with one propagation for all, see docs/scale.md; above 1,
    `compile` has no effect"""


class Regularised(Train):
    """Training with the embeddings' norm in the loss."""

    l2: Weight = 1e-4  # weight of the embeddings' norm


class Multimodal(Regularised):
    """Training of the field's multimodal recommenders, at the learning rate of the published benchmarks."""

    lr: Rate = 1e-3


class Contrastive(Multimodal):
    """Training with a contrastive loss between views."""

    temperature: Rate = 0.2  # of the contrastive loss


class ItemGraph(Train):
    """Propagation over the user-item graph, as LightGCN's, and over an item graph."""

    layers: Count = 2  # LightGCN layers over the user-item graph
    item_layers: Count = 1  # propagations over the item graph; 0: none
