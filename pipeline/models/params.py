"""Parameters that every recommender's training shares; a model's own stand beside it in pipeline/models/."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Count, Positive, Rate, Section, Share, Weight

FEATURES = "beit3"
"""the feature set that the released recommender is trained on, where the parameters name none"""


Decay = Annotated[float, Field(gt=0, le=1)]
Grid = dict[str, list[int | float]]
"""key of a model's settings -> values that its authors searched"""


class Train(Section):
    """The training loop (method.md sections 3, 4)."""

    speed: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    grid: ClassVar[Grid] = {}
    """the authors' grid of the model as far as it is known, else values around their settings; its ends are the default
    ranges of a search; empty: lr and l2 are searched"""

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
    """a run whose patience is over goes on while its last `patience` epochs took more than this share of the first
    epoch's loss off the loss, see docs/accuracy.md; null: it stops, as published"""
    decimals: Count | None = 4
    """decimals that valid Recall@20 is rounded to before it is compared, as published; null: not rounded"""
    by_time: bool = False
    """whether an epoch has the train pairs in the order of time, as a stream brings them; false: in random order"""
    compile: bool = False
    """whether torch.compile makes CUDA graphs of a step's many small kernels, for a minute at the start; GPU only"""
    checkpoint_every: Positive = 10
    """epochs between checkpoints that a killed run resumes from"""
    threads: Positive = 1
    """of the train stage on CPU; more are faster on large data, and round differently"""
    seed: int = 0


class Accumulating(Train):
    """Training of a model that several batches may share a walk over the graph of."""

    accumulate: Positive = 1
    """batches whose gradients are added up before a step; the graph is walked once for all of them, see docs/scale.md.
    Of more than one, `compile` compiles nothing"""


class Regularised(Train):
    """Training of a model that adds the embeddings' norm to its loss."""

    l2: Weight = 1e-4
    """weight of the embeddings' norm"""


class Varied(Train):
    """Training of a model whose reference implementation departs from its paper."""

    variant: Literal["reference", "paper"] = "reference"
    """reference: as the published code computes it, with which published tables are made; paper: its equations"""
