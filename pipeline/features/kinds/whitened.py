"""Kind `whitened`: a feature set as probes process it."""

from alignrec.pipeline.features.kinds.base import Combination, Derived, SetKind, SetRecipe
from alignrec.pipeline.features.kinds.fitted import make_fitted, map_of_one
from alignrec.pipeline.linalg.projections import fit_pca
from alignrec.pipeline.runtime.section import Width


class Whitened(Derived):
    """Settings of kind `whitened`: a feature set, centred, reduced by PCA and whitened."""

    width: Width = 128
    """maximum number of principal components"""


def make_whitened(recipe: SetRecipe) -> Combination:
    fitted = fit_pca(recipe.parts[0].vectors, recipe.settings.width)
    return make_fitted(recipe, map_of_one(fitted))


WHITENED = SetKind("whitened", make_whitened, Whitened)
