"""Training parameters shared by recommenders, and those of AlignRec, which are section `train` of
params.yaml and are checked before torch is loaded. Those of other models are in their own files.
"""

from typing import Annotated, Any, ClassVar, Literal

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

# defaults under `recipe: fast`, from a search on Baby; experiments/recipes.py measures them
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
