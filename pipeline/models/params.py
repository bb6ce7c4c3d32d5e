"""Parameters of recommenders, which are checked before torch is loaded.

Those of AlignRec are section `train` of params.yaml, those of others `benchmark.overrides`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alignrec.pipeline.runtime.section import (
    Layers,
    Name,
    Positive,
    Rate,
    Section,
    Seed,
    Share,
    Threads,
    Weight,
    Width,
)

# defaults under `recipe: fast`, from a search on Baby
FAST = {
    "mode": "frozen",
    "precision": "bf16",
    "dim": 128,
    "layers": 4,
    "lr": 1.5e-3,
    "epochs": 30,
    "patience": 5,
}
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


class AlignRecParams(Regularised, Accumulating, ItemGraph):
    """Parameters of AlignRec (method.md sections 3 and 4), section `train` of params.yaml."""

    recipe: Literal["published", "fast"] = "published"
    """defaults of the other keys: as published, or FAST: wider and deeper, with fewer epochs"""
    features: Name = DEFAULT_FEATURE_SET
    """feature set that the released recommender is trained on"""
    mode: Literal["compat", "frozen"] = "compat"
    """compat: features are trained, and REG's target with them, as in the published code; frozen:
    neither, as in the paper"""
    cca: Weight = 0.01
    """weight of content-ID alignment"""
    reg: Weight = 0.1
    """weight of the similarity regulariser"""
    uia: Weight = 0.1
    """weight of user-item alignment"""
    temperature: Rate = 0.2
    """temperature of CCA's InfoNCE"""
    precision: Literal["exact", "bf16"] = "exact"
    """bf16: largest products in bfloat16, which rounds differently; exact where oneDNN has no
    bfloat16, as on CPUs without AVX512"""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        is_fast = isinstance(given, dict) and given.get("recipe") == "fast"
        return FAST | given if is_fast else given


class ItemKNNParams(Train):
    neighbours: Positive = 100  # neighbours per item (K)
    shrink: Weight = 0.0
    """constant added to the norms (h), which discounts pairs of rare items; 0 in the paper"""


class ClosedParams(Train):
    """Parameters shared by all closed-form models."""

    l2: Rate = 200  # weight of |B|^2 (lambda), in units of one user's weight
    gib: Rate = 24  # maximum size of the float32 I x I matrix, GiB; 24 GiB suffice for 80,000 items


class L3AEParams(ClosedParams):
    """Parameters of L3AE: EASE regularised towards an EASE on features."""

    l2: float = 100
    """weight of |B|^2; negative values, as the authors', need l2 + distil > 0"""
    content_l2: Rate = 10
    """weight of |S|^2"""
    distil: Weight = 100
    """weight of |B - S|^2; 0: EASE"""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.l2 + self.distil <= 0:
            raise ValueError(f"l2 {self.l2:g} and distil {self.distil:g} must have a sum above 0")
        return self


class BPRParams(Regularised):
    variant: Literal["reference", "paper"] = "reference"
    """reference: the published code, behind published tables; paper: its equations"""


class LightGCNParams(Regularised, Accumulating):
    layers: Layers = 2  # LightGCN layers over the user-item graph


class DualGNNParams(Multimodal):
    neighbours: Positive = 40
    """neighbours that a user aggregates, by common items (K); 40 in the published code"""


class SLMRecParams(Contrastive):
    layers: Layers = 3  # LightGCN layers over the user-item graph


class BM3Params(Multimodal):
    layers: Layers = 1  # LightGCN layers over the user-item graph
    drop: Share = 0.3  # dropout rate of the second view
    content: Weight | None = None  # weight of the content losses; null: 2, or 1 for bm3-improved


class LATTICEParams(Multimodal, ItemGraph): ...


class FREEDOMParams(ItemGraph):
    """Parameters of FREEDOM; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    drop: Share = 0.8  # share of user-item edges dropped per epoch
    first: Share = 0.9  # weight of the first modality's graph; the others share the rest
    modal: Weight = 1e-3  # weight of the per-modality ranking losses (lambda)


class MGCNParams(Contrastive, ItemGraph):
    contrast: Weight = 0.01  # weight of the contrastive loss between behaviour and content
