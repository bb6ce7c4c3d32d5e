"""Parameters of training: AlignRec's, and what other models have beside or instead."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Name, Positive, Rate, Section, Share, Weight

FAST: dict[str, Any] = {
    "mode": "frozen",
    "precision": "bf16",
    "dim": 128,
    "layers": 4,
    "lr": 1.5e-3,
    "epochs": 30,
    "patience": 5,
}
"""the values that `recipe: fast` has for keys that are not given; how they were found: docs/accuracy.md"""


class Train(Section):
    """AlignRec (method.md sections 3, 4); benchmark's other models use the keys that they share."""

    recipe: Literal["published", "fast"] = "published"
    """what keys that are not given are: the published settings, or those of FAST: wider and deeper, at three times the
    learning rate, with fixed features and rounded products, so that a quarter of the epochs is enough"""
    features: Name = "beit3"
    """feature set the released recommender is trained on"""
    standardise: bool = False
    """features are centred and scaled, column by column, before a model reads them; the item graph is not made anew"""
    mode: Literal["compat", "learned", "frozen"] = "compat"
    """compat: as the published code, the feature table learns and moves REG's target; learned: it learns, the target
    stays; frozen: the paper's reading, neither moves"""
    dim: Positive = 64
    """embedding width D"""
    layers: Annotated[int, Field(ge=0)] = 2
    """LightGCN layers over the user-item graph"""
    item_layers: Annotated[int, Field(ge=0)] = 1
    """propagations over the item graph; 0: none"""
    content: bool = True
    """AlignRec's content branch; false: the ID branch alone, without CCA and REG"""
    gate: bool = True
    """content gates the item's ID embedding; false: the projected features walk the item graph themselves"""
    self_neighbour: bool = True
    """the published item graph has each item among its own neighbours; false: only others"""
    symmetric: bool = False
    """false, as published: an edge counts as the search found it; true: both ways"""
    batch_size: Positive = 2048
    lr: Rate = 5e-4
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """factor per 50 epochs, applied smoothly"""
    epochs: Positive = 1000
    """at most"""
    patience: Positive = 30
    """evaluations without a better valid Recall@20 before stopping"""
    falling: Share | None = None
    """a run whose patience is over goes on while its last `patience` epochs took more than this share of the first
    epoch's loss off the loss, see docs/accuracy.md; null: it stops, as published"""
    decimals: Annotated[int, Field(ge=0)] | None = 4
    """valid Recall@20 is rounded to so many before it is compared, as published; null: compared as it is"""
    cca: Weight = 0.01
    """weight of content-ID alignment"""
    reg: Weight = 0.1
    """weight of the similarity regulariser"""
    reg_cosine: bool = False
    """false, as published: REG compares the content branch's dot products with cosines; true: its cosines"""
    uia: Weight = 0.1
    """weight of user-item alignment"""
    l2: Weight = 1e-4
    """weight of the embeddings' norm"""
    l2_constant: bool = True
    """AlignRec's L2 is divided by batch_size, as published; false: by the batch's pairs, of which the last has few"""
    temperature: Rate = 0.2
    """of CCA's InfoNCE"""
    precision: Literal["exact", "bf16"] = "exact"
    """bf16: AlignRec's largest products read bfloat16, faster where the processor can; other last digits"""
    compile: bool = False
    """whether torch.compile makes CUDA graphs of a step's many small kernels, for a minute at the start; GPU only"""
    checkpoint_every: Positive = 10
    """epochs between checkpoints that a killed run resumes from"""
    threads: Positive = 1
    """of the train stage on CPU; more are faster on large data, and round differently"""
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return FAST | given if isinstance(given, dict) and given.get("recipe") == "fast" else given


class TrainItemKnn(Train):
    """Item-based nearest neighbours on co-interactions, without training."""

    neighbours: Positive = 100
    """most similar items that an item keeps"""


class TrainMmgcn(Train):
    """MMGCN; the learning rate of the published benchmarks, as in the classes below."""

    lr: Rate = 1e-3


class TrainGrcn(Train):
    """GRCN."""

    lr: Rate = 1e-3
    routings: Positive = 3
    """iterations of neighbour routing T"""


class TrainDualgnn(Train):
    """DualGNN."""

    lr: Rate = 1e-3
    neighbours: Positive = 10
    """users with the most items in common that a user listens to"""


class TrainSlmrec(Train):
    """SLMRec."""

    lr: Rate = 1e-3
    contrast: Weight = 0.01
    """weight of the self-supervised task"""


class TrainBm3(Train):
    """BM3."""

    lr: Rate = 1e-3
    layers: Annotated[int, Field(ge=0)] = 1
    drop: Share = 0.3
    """share of a vector's entries that the second view lacks"""
    learner: Literal["content", "id"] = "content"
    """which side of the alignment of content and ID learns; the other is the target, and has no gradient"""


class TrainLattice(Train):
    """LATTICE."""

    lr: Rate = 1e-3
    skip: Share = 0.7
    """share of the fixed graph in the sum with the learned one, lambda"""


class TrainFreedom(Train):
    """FREEDOM."""

    lr: Rate = 1e-3
    drop: Share = 0.8
    """share of user-item edges that an epoch lacks"""
    first: Share = 0.9
    """weight of the first modality's graph; the others share the rest"""
    modal: Weight = 1e-3
    """weight of the modalities' own ranking losses, lambda"""


class TrainMgcn(Train):
    """MGCN."""

    lr: Rate = 1e-3
    contrast: Weight = 0.01
    """weight of the contrastive loss between behaviour and content"""


class Overrides(Section):
    """model -> keys of `train` that differ for it, and the keys that only it has."""

    itemknn: TrainItemKnn = TrainItemKnn()
    contentknn: Train = Train()
    bpr: Train = Train()
    lightgcn: Train = Train()
    vbpr: Train = Train()
    mmgcn: TrainMmgcn = TrainMmgcn()
    grcn: TrainGrcn = TrainGrcn()
    dualgnn: TrainDualgnn = TrainDualgnn()
    slmrec: TrainSlmrec = TrainSlmrec()
    bm3: TrainBm3 = TrainBm3()
    lattice: TrainLattice = TrainLattice()
    freedom: TrainFreedom = TrainFreedom()
    mgcn: TrainMgcn = TrainMgcn()
    alignrec: Train = Train()


Model = Literal[
    "itemknn", "contentknn", "bpr", "lightgcn", "vbpr", "mmgcn", "grcn", "dualgnn", "slmrec", "bm3", "lattice",
    "freedom", "mgcn", "alignrec",
]  # fmt: skip
