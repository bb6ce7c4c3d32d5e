"""Section `combine` of params.yaml. Section `semantic_ids` of params.yaml. Section `graph` of params.yaml."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from alignrec.pipeline.linalg.projections import WIDTH
from alignrec.pipeline.runtime.section import Name, Positive, Section


class Combine(Section):
    """Section `combine`: feature sets derived from others, and controls."""

    sets: dict[Name, dict[str, Any]] = {"linear": {}}
    """name -> `kind`, a name in pipeline/features/names.py, and keys of that kind's class"""
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


def _power_of_two(codes: int) -> int:
    if codes & (codes - 1):
        raise ValueError(f"{codes} is not a power of two")
    return codes


class SemanticIds(Section):
    """Section `semantic_ids`: semantic IDs of items by residual quantisation."""

    features: list[Name] = []
    """feature sets to encode as IDs; empty: none; by default that of the released recommender"""
    levels: Annotated[int, Field(ge=1, le=16)] = 3
    """codes per item (L)"""
    codes: Annotated[int, Field(ge=2, le=65_536), AfterValidator(_power_of_two)] = 256
    """values per code (K), a power of two; by default at most a quarter of the items"""
    seed: int = 0

    def for_items(self, items: int) -> Self:
        if "codes" in self.model_fields_set:
            return self
        # by default, every code has several items to learn from
        most = max(2, items // 4)
        return self.model_copy(update={"codes": min(self.codes, 1 << (most.bit_length() - 1))})


class Graph(Section):
    """Section `graph`: search for the nearest neighbours of items."""

    k: Positive = 10
    """neighbours per item, including itself"""
    index: Literal["auto", "exact", "ivf"] = "auto"
    """exact: all pairs, in memory; ivf: faster, on disk, recall >= 0.95; auto: by size"""
    exact_up_to: Positive = 70_000
    """number of items above which `auto` chooses ivf"""
