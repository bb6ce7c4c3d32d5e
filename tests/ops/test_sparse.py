"""Products and softmax of sparse matrices, against dense ones; and whitening."""

import numpy as np
import scipy.sparse as sp
import torch

from alignrec.pipeline.ops import linalg
from alignrec.pipeline.ops.sparse import Sparse, SparsityPattern

ROWS, COLUMNS = np.array([3, 0, 0, 1, 3, 3]), np.array([1, 2, 0, 1, 0, 3])  # row 2 and column 4 are empty
EDGES = SparsityPattern(ROWS, COLUMNS, (4, 5), torch.device("cpu"))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)


def matrix(weights: torch.Tensor) -> torch.Tensor:
    return torch.zeros(4, 5, dtype=torch.float64).index_put((torch.tensor(ROWS), torch.tensor(COLUMNS)), weights)


def test_products_are_the_dense_ones_both_ways() -> None:
    w, x, y = random(6), random(5, 3), random(4, 3)
    torch.testing.assert_close(EDGES.product(w, x), matrix(w) @ x)
    torch.testing.assert_close(EDGES.T.product(w, y), matrix(w).T @ y)


def test_dots_are_entries_of_the_dense_product() -> None:
    x, y = random(4, 3), random(5, 3)
    torch.testing.assert_close(EDGES.dots(x, y), (x @ y.T)[ROWS, COLUMNS])
    torch.testing.assert_close(EDGES.T.dots(y, x), (x @ y.T)[ROWS, COLUMNS])


def test_softmax_is_within_a_row() -> None:
    scores = random(6).detach() * 1000  # would overflow without the maximum taken off
    dense = torch.full((4, 5), -torch.inf, dtype=torch.float64)
    dense[ROWS, COLUMNS] = scores
    torch.testing.assert_close(EDGES.softmax(scores), dense.softmax(1)[ROWS, COLUMNS])
    torch.testing.assert_close(EDGES.T.softmax(scores), dense.softmax(0)[ROWS, COLUMNS])


def test_gradients() -> None:
    assert torch.autograd.gradcheck(EDGES.product, (random(6), random(5, 3)))
    assert torch.autograd.gradcheck(EDGES.T.product, (random(6), random(4, 3)))
    assert torch.autograd.gradcheck(EDGES.dots, (random(4, 3), random(5, 3)))
    assert torch.autograd.gradcheck(EDGES.softmax, (random(6),))


def test_equals_the_dense_product_both_ways() -> None:
    matrix = sp.random_array((7, 5), density=0.4, rng=np.random.default_rng(0)).tolil()
    matrix[3] = 0  # an empty row
    sparse = Sparse(sp.csr_array(matrix), dtype=torch.float64)
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    dense = torch.from_numpy(matrix.toarray())
    torch.testing.assert_close(sparse.dot(x), dense @ x)
    torch.testing.assert_close(sparse.T.dot(y), dense.T @ y)
    torch.testing.assert_close(sparse.T.T.dot(x), dense @ x)
    assert torch.autograd.gradcheck(sparse.dot, x.requires_grad_())


# --- whitening


def test_directions_vary_equally_afterwards() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 3)) * [10.0, 3.0, 1.0] @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 7
    white = linalg.fit_whitening(x).apply(x)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=0.05)


def test_equal_vectors_are_only_moved() -> None:
    x = np.full((4, 2), 3.0, np.float32)
    actual = linalg.fit_whitening(x)
    np.testing.assert_array_equal(actual.apply(x), 0)
    np.testing.assert_allclose(actual.apply(np.array([[4.0, 3.0]], np.float32)), [[1, 0]], atol=1e-6)
