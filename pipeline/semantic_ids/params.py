"""Parameters of the stage `semantic_ids`; those of a method are in pipeline/semantic_ids/."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from pipeline.config.base import Name, Positive, Section

Collisions = Literal["keep", "suffix", "reassign"]
"""items of equal codes get: nothing; a last code that separates them; the next free last code"""
Levels = Annotated[int, Field(ge=1, le=16)]
Codes = Annotated[int, Field(ge=2, le=65_536)]
SHUFFLED = "shuffled"
"""the method whose codes are those of another"""
FIRST = "residual-kmeans"
"""that other, unless its settings say `method`"""


class SemanticIds(Section):
    """Items as a few discrete codes."""

    features: list[Name] = []
    """feature sets that are coded; empty: none; where they are not given, that of the released recommender"""
    methods: Annotated[list[Name], Field(min_length=1)] = [FIRST, "random"]
    """see pipeline/semantic_ids/registry.py"""
    levels: Levels = 3
    """codes an item, L"""
    codes: Codes = 256
    """values of a code, K; where it is not given, a quarter of the items at most"""
    collisions: Collisions = "suffix"
    """keep: several items share an id; suffix: a last code numbers them; reassign: the next free last code"""
    fit_rows: Positive = 262_144
    """items that codebooks are learned on at most, drawn at random; all are coded, a block at a time"""
    probed_items: Positive = 100_000
    """items up to which reconstructed vectors are probed as well: that holds the feature set in memory"""
    settings: dict[Name, dict[str, Any]] = {}
    """method -> keys of its own class in pipeline/semantic_ids/"""
    seed: int = 0

    def for_items(self, items: int) -> Self:
        """Return the section for a number of items: by default each code has some items to learn on."""
        if "codes" in self.model_fields_set:
            return self
        return self.model_copy(update={"codes": min(self.codes, max(2, items // 4))})

    def parts(self, method: str) -> list[str]:
        inner = self.settings.get(SHUFFLED, {}).get("method", FIRST)
        return [method, inner] if method == SHUFFLED else [method]
