"""Section `probe` of params.yaml."""

from typing import Annotated, Any

from pydantic import Field

from alignrec.pipeline.runtime.section import Cutoffs, Name, Section, Width


class ProbeParams(Section):
    """Section `probe`: evaluation of feature sets without a recommender (method.md section 5)."""

    ks: Cutoffs = [5, 10, 20, 50]
    width: Width = 128
    """maximum width of processed sets, which are reduced by PCA and relaxed or whitened, whichever
    is best on valid
    """
    features: Annotated[list[Name], Field(min_length=1)] | None = None
    """feature sets to judge; by default all of them"""

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        return {key: value for key, value in facts.items() if value}
