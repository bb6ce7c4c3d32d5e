"""ChebyCF (Kim et al., SIGIR 2025, arXiv 2505.00552): a flexible low-pass filter as a Chebyshev interpolant.

The released code takes the target's values at other points than the interpolation's nodes, and rounds them to three
digits; here they are taken at the nodes.
Letters: U users, I items, b histories, K order.
"""

from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from pipeline.config.base import Count, Positive, Rate, Weight
from pipeline.models import adjacency
from pipeline.models.base import Inputs, Untrained
from pipeline.models.gfcf import Ideal
from pipeline.models.params import Grid, Train
from pipeline.ops.filters import Filter, plain
from pipeline.ops.sparse import Sparse


class ChebyCFParams(Train):
    """Keys of ChebyCF."""

    grid: ClassVar[Grid] = {
        "order": [4, 8, 12],
        "flatness": [1.0, 1.5, 2.0],
        "frequencies": [128, 256, 512],
        "ideal": [0.0, 0.1, 0.2, 0.3],
        "degree": [0.0, 0.2, 0.4, 0.5],
    }
    order: Positive = 8  # degree of the polynomial, K
    flatness: Rate = 1.5  # of the target between low and high frequencies, phi
    frequencies: Count = 512  # lowest frequencies that the ideal filter passes, eta
    ideal: Weight = 0.2  # weight of the ideal filter, alpha
    degree: Weight = 0.4  # power of an item's degree that its history is divided by and its score multiplied by, beta


class ChebyCF(Untrained):
    """score(u, .) = r_u D^-p (sum_k c_k T_k(L~) + ideal V V^T) D^p, L~ = 1 - 2 R~^T R~."""

    Params = ChebyCFParams

    def __init__(self, inputs: Inputs, params: ChebyCFParams) -> None:
        super().__init__(inputs, params)
        self.seen = adjacency.seen(inputs.split)
        ideal = Ideal(self.seen, params.frequencies, params.degree, params.ideal, inputs.device)
        self.filter = Chebyshev(inputs.user_item, ideal, coefficients(params.order, params.flatness))

    def forward(self) -> tuple[sp.csr_array, Filter]:
        return self.seen, self.filter


def coefficients(order: int, flatness: float) -> list[float]:
    """Return c_0 .. c_K of the interpolant at the K + 1 Chebyshev nodes.

    The target is (1 + (-x)^phi) / 2 for x below 0, (1 - x^phi) / 2 above: 1 at the lowest frequency, x = -1, and 0 at
    the highest.
    """

    def target(x: np.ndarray) -> np.ndarray:
        return (1 - np.sign(x) * np.abs(x) ** flatness) / 2

    return [float(c) for c in np.polynomial.chebyshev.chebinterpolate(target, order)]  # type: ignore[type-var]


class Chebyshev(Filter):
    """A polynomial of the Laplacian, by Clenshaw's recurrence, plus an ideal filter."""

    def __init__(self, user_item: Sparse, ideal: Ideal, coefficients: list[float]) -> None:
        super().__init__(len(ideal.after))
        self.user_item, self.ideal, self.coefficients = user_item, ideal, coefficients

    def laplace(self, x: Tensor) -> Tensor:
        """Return L~ x, [I, b]: the eigenvalues of L, 0 to 1, lie on -1 to 1."""
        return x - 2 * self.user_item.T.dot(self.user_item.dot(x))

    def apply(self, histories: sp.csr_array) -> Tensor:
        x = plain(histories, self.ideal.after.device)
        signal = self.ideal.before * x
        first, second = 0 * signal, 0 * signal
        for c in self.coefficients[:0:-1]:
            first, second = c * signal + 2 * self.laplace(first) - second, first
        out = self.coefficients[0] * signal + self.laplace(first) - second
        return (self.ideal.after * out + self.ideal.apply(x)).T
