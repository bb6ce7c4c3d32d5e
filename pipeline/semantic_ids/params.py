"""Section `semantic_ids` of params.yaml."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field

from alignrec.pipeline.harness.config import Name, Section


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
