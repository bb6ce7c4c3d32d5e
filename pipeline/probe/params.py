"""Section `probe` of params.yaml."""

from alignrec.pipeline.runtime.section import Positive, Section


class ProbeParams(Section):
    """Section `probe`: evaluation of feature sets without a recommender (method.md section 5)."""

    ks: list[Positive] = [5, 10, 20, 50]
    width: Positive = 128
    """maximum width of processed sets, which are reduced by PCA and relaxed or whitened, whichever
    is best on valid
    """
