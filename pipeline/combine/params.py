"""Section `combine` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field

from alignrec.pipeline.harness.config import Name, Positive, Section
from alignrec.pipeline.ops.linalg import WIDTH


class Combine(Section):
    """Section `combine`: feature sets derived from others, and controls."""

    sets: dict[Name, dict[str, Any]] = {"linear": {}}
    """name -> `kind`, a name in pipeline/combine/names.py, and keys of that kind's class"""
    controls: list[Literal["random", "shuffled", "constant"]] = ["random", "shuffled", "constant"]
    """feature sets that a useful one must beat; shuffled permutes the rows of the first set"""
    seed: int = 0


class Concat(Section):
    """Settings of kind `concat`: parts scaled to length 1 and concatenated."""

    of: Annotated[list[Name], Field(min_length=2)]
    """feature sets, in order"""


class Derived(Section):
    """Settings of kind `mapped`: a feature set mapped by ridge regression to factors of training interactions."""

    of: Name
    """feature set to transform"""


class Whitened(Derived):
    """Settings of kind `whitened`: a feature set, centred, reduced by PCA and whitened."""

    width: Positive = 128
    """maximum number of principal components"""


class Linear(Section):
    """Settings of kind `linear`: all parts reduced to one width; validation chooses how."""

    of: list[Name] = []
    """feature sets; empty: those of `encode.encoders` and those that come with the source"""
    width: Positive = WIDTH
    """maximum number of principal components, of each part and of the concatenation"""


class Masked(Section):
    """Settings of kind `masked`: a feature set as if no item had a modality."""

    of: Name
    """feature set to mask"""
    modality: Literal["image", "text"]
    """masked modality of every item"""


class Leaked(Section):
    """Settings of kind `leaked`: factors of all interactions, test included, an upper bound."""

    width: Positive = WIDTH
    """maximum number of factors"""


class Planted(Section):
    """Settings of kind `planted`: the ground truth of a generated catalogue, an upper bound."""
