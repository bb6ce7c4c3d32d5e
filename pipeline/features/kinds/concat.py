"""Kind `concat`: parts side by side."""

from typing import Annotated

from pydantic import Field

from alignrec.pipeline.features.kinds.base import Combination, KindSettings, SetKind, SetRecipe
from alignrec.pipeline.features.kinds.fitted import make_fitted
from alignrec.pipeline.linalg.projections import concatenation_map
from alignrec.pipeline.runtime.section import Name


class Concat(KindSettings):
    """Settings of kind `concat`: parts scaled to length 1 and concatenated."""

    of: Annotated[list[Name], Field(min_length=2)]
    """feature sets, in order"""

    def parts(self) -> list[str]:
        return self.of


def make_concat(recipe: SetRecipe) -> Combination:
    return make_fitted(recipe, concatenation_map([part.width for part in recipe.parts]))


CONCAT = SetKind("concat", make_concat, Concat)
