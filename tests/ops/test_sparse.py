import numpy as np
import pytest
import scipy.sparse as sp
import torch

from pipeline.ops.sparse import Sparse


@pytest.fixture
def matrix() -> sp.csr_array:
    made = sp.random_array((7, 5), density=0.4, rng=np.random.default_rng(0), format="csr")
    made[3] = 0  # an empty row
    made.eliminate_zeros()
    return sp.csr_array(made)


def test_equals_the_dense_product_both_ways(matrix: sp.csr_array) -> None:
    sparse = Sparse(matrix, dtype=torch.float64)
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    dense = torch.from_numpy(matrix.toarray())
    torch.testing.assert_close(sparse.dot(x), dense @ x)
    torch.testing.assert_close(sparse.T.dot(y), dense.T @ y)
    torch.testing.assert_close(sparse.T.T.dot(x), dense @ x)


def test_gradient(matrix: sp.csr_array) -> None:
    sparse = Sparse(matrix, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sparse.dot, x)


def test_the_fast_float32_kernel_agrees_at_the_width_that_training_uses() -> None:
    made = sp.random_array((300, 200), density=0.1, rng=np.random.default_rng(0), format="csr", dtype=np.float32)
    x = np.random.default_rng(1).normal(size=(200, 64)).astype(np.float32)
    np.testing.assert_allclose(Sparse(made).dot(torch.from_numpy(x)).numpy(), made.toarray() @ x, rtol=1e-4, atol=1e-5)
