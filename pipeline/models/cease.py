"""CEASE and AddEASE (Jeunen, Van Balen and Goethals, RecSys 2020): EASE with content.

The first treats the columns of features as more users, the second adds two models. Features have length 1.
"""

from typing import ClassVar

import numpy as np

from pipeline.config.base import Rate, Share, Weight
from pipeline.models import closed
from pipeline.models.base import Inputs
from pipeline.models.closed import Closed, ClosedParams
from pipeline.models.params import Grid


class CEASEParams(ClosedParams):
    """Keys of CEASE."""

    grid: ClassVar[Grid] = {"l2": [50, 100, 200, 500, 1000], "content": [1, 10, 100, 1000]}
    l2: Rate = 200
    """weight of |B|^2, lambda, in users"""
    content: Weight = 100
    """weight of the features' columns, a user being 1, alpha"""


class CEASE(Closed):
    """score(u, .) = x_u B, B = argmin |X - X B|^2 + content |F - F B|^2 + l2 |B|^2, diag(B) = 0."""

    Params = CEASEParams
    needs = frozenset({"features"})

    def weigh(self, inputs: Inputs, params: CEASEParams) -> np.ndarray:
        features, matrix = closed.content(inputs.features), closed.gram(self.seen)
        closed.add_product(matrix, params.content * features, features)
        closed.add_to_diagonal(matrix, params.l2)
        return closed.constrain(closed.invert(matrix, "cease"))


class AddEASEParams(ClosedParams):
    """Keys of AddEASE."""

    grid: ClassVar[Grid] = {
        "l2": [50, 100, 200, 500, 1000],
        "content_l2": [1, 10, 50, 100],
        "share": [0.1, 0.2, 0.3, 0.5, 0.7],
    }
    l2: Rate = 200
    """weight of |B|^2 in the model of interactions, in users"""
    content_l2: Rate = 10
    """weight of |S|^2 in the model of features of length 1"""
    share: Share = 0.3
    """of the model of features in the sum"""


class AddEASE(Closed):
    """score(u, .) = x_u ((1 - share) B + share S), B an EASE on interactions and S one on features."""

    Params = AddEASEParams
    needs = frozenset({"features"})

    def weigh(self, inputs: Inputs, params: AddEASEParams) -> np.ndarray:
        w, v = closed.content_factors(closed.content(inputs.features), params.content_l2)
        matrix = closed.gram(self.seen)
        closed.add_to_diagonal(matrix, params.l2)
        matrix = closed.constrain(closed.invert(matrix, "addease"))
        matrix *= 1 - params.share
        closed.add_product(matrix, params.share * w, v)
        np.fill_diagonal(matrix, 0)
        return matrix
