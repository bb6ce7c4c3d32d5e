"""EASE (Steck, WWW 2019) and variants with content; all features have length 1."""

from typing import Self

import numpy as np
from pydantic import model_validator

from alignrec.pipeline.harness.config import Rate, Share, Weight
from alignrec.pipeline.models import closed
from alignrec.pipeline.models.base import Inputs
from alignrec.pipeline.models.closed import Closed, ClosedParams


class EASE(Closed):
    """score(u, .) = x_u B, B = argmin |X - X B|^2 + l2 |B|^2, diag(B) = 0."""

    def weigh(self, inputs: Inputs, params: ClosedParams) -> np.ndarray:
        return closed.zero_diagonal(closed.invert_ridge(closed.gram_matrix(self.seen), params.l2, "ease"))


# Jeunen, Van Balen and Goethals, RecSys 2020; AddEASE too
class CEASEParams(ClosedParams):
    """Parameters of CEASE."""

    content: Weight = 100
    """weight of feature columns (alpha); 1 is the weight of a user"""


class CEASE(Closed):
    """score(u, .) = x_u B, B = argmin |X - X B|^2 + content |F - F B|^2 + l2 |B|^2, diag(B) = 0."""

    Params = CEASEParams
    needs = frozenset({"features"})

    def weigh(self, inputs: Inputs, params: CEASEParams) -> np.ndarray:
        features, matrix = closed.unit_content(inputs.features), closed.gram_matrix(self.seen)
        closed.add_product(matrix, params.content * features, features)
        return closed.zero_diagonal(closed.invert_ridge(matrix, params.l2, "cease"))


class AddEASEParams(ClosedParams):
    """Parameters of AddEASE."""

    content_l2: Rate = 10
    """weight of |S|^2"""
    share: Share = 0.3
    """share of the feature model in the sum"""


class AddEASE(Closed):
    """score(u, .) = x_u ((1 - share) B + share S), B an EASE on interactions, S an EASE on features."""

    Params = AddEASEParams
    needs = frozenset({"features"})

    def weigh(self, inputs: Inputs, params: AddEASEParams) -> np.ndarray:
        w, v = closed.content_factors(closed.unit_content(inputs.features), params.content_l2)
        matrix = closed.zero_diagonal(closed.invert_ridge(closed.gram_matrix(self.seen), params.l2, "addease"))
        matrix *= 1 - params.share
        closed.add_product(matrix, params.share * w, v)
        np.fill_diagonal(matrix, 0)
        return matrix


# Moon, Park and Lee, CIKM 2025, arXiv 2508.13500: items without interactions get scores from content
class L3AEParams(ClosedParams):
    """Parameters of L3AE."""

    l2: float = 100
    """weight of |B|^2; negative values, as the authors', need l2 + distil > 0"""
    content_l2: Rate = 10
    """weight of |S|^2"""
    distil: Weight = 100
    """weight of |B - S|^2; 0: EASE"""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.l2 + self.distil <= 0:
            raise ValueError(f"l2 {self.l2:g} and distil {self.distil:g} must have a sum above 0")
        return self


class L3AE(Closed):
    """score(u, .) = x_u B, B = argmin |X - X B|^2 + l2 |B|^2 + distil |B - S|^2, diag(B) = 0, S an EASE on features."""

    Params = L3AEParams
    needs = frozenset({"features"})

    def weigh(self, inputs: Inputs, params: L3AEParams) -> np.ndarray:
        # B = 1 + d P S - P diag(m), with P = (X^T X + l2 + distil)^-1, d = distil and m such that diag(B) = 0; S =
        # diag(c) + W V^T is of low rank off its diagonal, so P S = P diag(c) + (P W) V^T
        w, v = closed.content_factors(closed.unit_content(inputs.features), params.content_l2)
        c = -(w * v).sum(1)  # [I], minus the diagonal of W V^T
        matrix = closed.invert_ridge(closed.gram_matrix(self.seen), params.l2 + params.distil, "l3ae")
        pw, p = params.distil * closed.multiply_symmetric(matrix, w), matrix.diagonal().copy()  # [I, F], [I]
        m = (1 + params.distil * p * c + (pw * v).sum(1)) / p
        matrix *= params.distil * c - m
        closed.add_product(matrix, pw, v)
        np.fill_diagonal(matrix, 0)
        return matrix
