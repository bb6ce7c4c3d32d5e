"""Section `probe` of params.yaml."""

from alignrec.pipeline.runtime.section import Cutoffs, Section, Width


class ProbeParams(Section):
    """Section `probe`: evaluation of feature sets without a recommender (method.md section 5)."""

    ks: Cutoffs = [5, 10, 20, 50]
    width: Width = 128
    """maximum width of processed sets, which are reduced by PCA and relaxed or whitened, whichever
    is best on valid
    """
