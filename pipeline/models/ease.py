"""EASE (Steck, WWW 2019): each item a ridge regression on all others, in closed form."""

from typing import ClassVar

import numpy as np

from pipeline.config.base import Rate
from pipeline.models import closed
from pipeline.models.base import Inputs
from pipeline.models.closed import Closed, ClosedParams
from pipeline.models.params import Grid


class EASEParams(ClosedParams):
    """Keys of EASE."""

    grid: ClassVar[Grid] = {"l2": [50, 100, 200, 500, 1000, 2000]}
    l2: Rate = 200
    """weight of |B|^2, lambda, in users"""


class EASE(Closed):
    """score(u, .) = x_u B, B = argmin |X - X B|^2 + l2 |B|^2, diag(B) = 0."""

    Params = EASEParams

    def weigh(self, inputs: Inputs, params: EASEParams) -> np.ndarray:
        matrix = closed.gram(self.seen)
        closed.add_to_diagonal(matrix, params.l2)
        return closed.constrain(closed.invert(matrix, "ease"))
