"""Sections `combine`, `semantic_ids` and `graph` of params.yaml."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.releases import name_release
from alignrec.pipeline.runtime.section import Name, Positive, Section, Seed


class Combine(Section):
    """Section `combine`: feature sets derived from others, and controls."""

    sets: dict[Name, dict[str, Any]] = {"linear": {}}
    """name -> `kind`, a name in pipeline/features/kinds/, and keys of that kind's class"""
    controls: list[Literal["random", "shuffled", "constant"]] = ["random", "shuffled", "constant"]
    """feature sets that a useful one must beat; shuffled permutes the rows of the first set"""
    seed: Seed = 0


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
    codebooks: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """folder of a release. Its codebooks code the items, so that equal vectors keep their codes;
    `levels` and `codes` are those of the release"""
    seed: Seed = 0

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.codebooks is not None:
            facts["codebooks"] = name_release(self.codebooks)
        return facts

    def refuse_other_sizes(self, levels: int, codes: int) -> None:
        """Raise UserError if other sizes than those of the release's codebooks are given."""
        sizes = {"levels": levels, "codes": codes}
        for key, size in sizes.items():
            given = getattr(self, key)
            if key in self.model_fields_set and given != size:
                raise UserError(
                    f"'semantic_ids.{key}': "
                    f"{given:,}, and the codebooks of the release have {size:,}; leave the key out"
                )

    def for_items(self, items: int) -> Self:
        if "codes" in self.model_fields_set or self.codebooks is not None:
            return self
        # by default, every code has several items to learn from
        most = max(2, items // 4)
        return self.model_copy(update={"codes": min(self.codes, 1 << (most.bit_length() - 1))})


class Graph(Section):
    """Section `graph`: search for the nearest neighbours of items."""

    speed: ClassVar[frozenset[str]] = frozenset({"engine"})

    engine: Literal["local", "ray"] = "local"
    """search in this process, or on the nodes of a Ray cluster (extra `ray`)"""
    k: Positive = 10
    """neighbours per item, including itself"""
    index: Literal["auto", "exact", "ivf"] = "auto"
    """exact: all pairs, in memory; ivf: faster, on disk, recall >= 0.95; auto: by size"""
    exact_up_to: Positive = 70_000
    """number of items above which `auto` chooses ivf"""
