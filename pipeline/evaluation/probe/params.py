"""Section `probe` of params.yaml."""

from typing import Annotated, Any

from pydantic import Field

from alignrec.pipeline.runtime.section import MAX_CUTOFFS, Cutoffs, Name, Section, Width


class ProbeParams(Section):
    """Section `probe`: evaluation of feature sets without a recommender (method.md section 5)."""

    ks: Cutoffs = [5, 10, 20, 50]
    width: Width = 128
    """maximum width of processed sets, which are reduced by PCA and relaxed or whitened, whichever
    is best on valid
    """
    features: Annotated[list[Name], Field(min_length=1)] | None = None
    """feature sets to judge; by default all of them"""
    widths: Annotated[list[Width], Field(max_length=MAX_CUTOFFS)] = []
    """numbers of leading columns to judge sets at, such as [64, 128, 256], besides all columns"""
    matryoshka: list[Name] = []
    """further sets to judge at `widths`: of networks trained with Matryoshka losses, encoded whole
    """

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        # without the later keys, records are as they were before these existed
        return {key: value for key, value in facts.items() if key in ("ks", "width") or value}
