import numpy as np
import scipy.sparse as sp
import torch

from pipeline.ops.sparse import Sparse


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


def test_the_fast_float32_kernel_agrees_at_the_width_that_training_uses() -> None:
    made = sp.random_array((300, 200), density=0.1, rng=np.random.default_rng(0), format="csr", dtype=np.float32)
    x = np.random.default_rng(1).normal(size=(200, 64)).astype(np.float32)
    np.testing.assert_allclose(Sparse(made).dot(torch.from_numpy(x)).numpy(), made.toarray() @ x, rtol=1e-4, atol=1e-5)
