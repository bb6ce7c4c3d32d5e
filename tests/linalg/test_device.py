"""Choice of the device, products on it and of sparse matrices, and whitening."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec.pipeline.linalg import device, projections
from alignrec.pipeline.linalg.sparse import Sparse, SparsityPattern
from alignrec.pipeline.runtime import code


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gemm_is_the_product_also_of_views(dtype: torch.dtype) -> None:
    x, y = drawn(70, 33, dtype=dtype), drawn(50, 33, dtype=dtype)
    tolerance = 2 * torch.finfo(dtype).eps
    turned = x.T, y[:70].T.repeat(1, 2)[:, :70]
    for a, b in ((x, y), (x[3:9], y), turned, (drawn(33, 70).to(dtype).T, y), (x[:, 1:9], y[:, 1:9])):
        plain = a.double() @ b.double().T
        actual = device.gemm(a, b)
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), plain, rtol=tolerance, atol=20 * tolerance)


def test_the_rate_of_a_processor_is_that_of_a_product_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "pick_device", lambda: torch.device("cpu"))
    gemm = device.gemm
    multiplied = set()

    def spy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        multiplied.add((*a.shape, b.shape[0]))
        return gemm(a, b)

    monkeypatch.setattr(device, "gemm", spy)
    assert device.gemm_rate.__wrapped__("float32", 0) > 1e6
    assert multiplied == {device.CPU_PRODUCT}


def test_product_in_float32_and_bfloat16_is_as_close_as_they_are() -> None:
    """bfloat16 has a relative error of 2^-8; that of a sum of products is at most a few times as large."""
    exact = [drawn(*shape, dtype=torch.float64).requires_grad_() for shape in ((90, 64), (16, 64))]
    (exact[0] @ exact[1].T).square().sum().backward()
    for bf16, most in ((False, 1e-6), (True, 0.01)):
        ours = [table.detach().float().requires_grad_() for table in exact]
        device.matrix_product(*ours, bf16=bf16).square().sum().backward()
        for mine, theirs in zip(ours, exact, strict=True):
            assert (mine.grad - theirs.grad).norm() < most * theirs.grad.norm()


def test_a_product_with_a_constant_has_the_gradient_of_the_other_factor() -> None:
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    device.matrix_product(x, y).sum().backward()
    assert torch.allclose(x.grad, y.sum(0).expand(3, 4), atol=1e-5)


PRODUCT_IN_BF16 = """
import torch
from alignrec.pipeline.linalg import device
x = torch.ones(64, 32, dtype=torch.bfloat16)
assert (device.gemm(x, x) == 32).all()
print(device.is_bf16_fast(torch.device("cpu")))
"""


def report_bf16(**settings: str) -> bool:
    """Multiply in bfloat16 in a process with these settings; return whether that is fast."""
    command = [sys.executable, "-c", PRODUCT_IN_BF16]
    environment = os.environ | settings
    printed = subprocess.check_output(command, cwd=code.ROOT, env=environment, text=True)
    return printed == "True\n"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the settings are of x86")
def test_onednn_multiplies_float32_where_torch_has_it_and_wide_vectors() -> None:
    cpu = torch.device("cpu")
    is_wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert device.by_onednn(cpu, torch.float32) == (torch.backends.mkldnn.is_available() and is_wide)
    assert not device.by_onednn(cpu, torch.float64)
    assert not device.by_onednn(cpu, torch.bfloat16)
    assert not device.by_onednn(torch.device("meta"), torch.float32)


def test_onednn_decides_whether_bfloat16_is_fast_whatever_aten_uses() -> None:
    assert not report_bf16(ONEDNN_MAX_CPU_ISA="AVX2")
    assert report_bf16(ATEN_CPU_CAPABILITY="default") == report_bf16()


@pytest.mark.parametrize(
    ("cuda", "mps", "picked", "without_mps"),
    [(True, True, "cuda", "cuda"), (False, True, "mps", "cpu"), (False, False, "cpu", "cpu")],
)
def test_cuda_comes_before_mps_before_the_cpu(
    cuda: bool, mps: bool, picked: str, without_mps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert (device.pick_device().type, device.pick_device(mps=False).type) == (picked, without_mps)


# --- sparse matrices, against dense ones, and whitening


ROWS, COLUMNS = np.array([3, 0, 0, 1, 3, 3]), np.array([1, 2, 0, 1, 0, 3])  # row 2 and column 4 are empty
EDGES = SparsityPattern(ROWS, COLUMNS, (4, 5), torch.device("cpu"))


def test_softmax_is_within_a_row() -> None:
    scores = 1000 * drawn(6, dtype=torch.float64)  # would overflow without the maximum taken off
    dense = torch.full((4, 5), -torch.inf, dtype=torch.float64)
    dense[ROWS, COLUMNS] = scores
    torch.testing.assert_close(EDGES.softmax(scores), dense.softmax(1)[ROWS, COLUMNS])
    torch.testing.assert_close(EDGES.T.softmax(scores), dense.softmax(0)[ROWS, COLUMNS])


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
    white = projections.fit_whitening(x).apply(x)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=0.05)


def test_equal_vectors_are_only_moved() -> None:
    x = np.full((4, 2), 3.0, np.float32)
    actual = projections.fit_whitening(x)
    np.testing.assert_array_equal(actual.apply(x), 0)
    np.testing.assert_allclose(actual.apply(np.array([[4.0, 3.0]], np.float32)), [[1, 0]], atol=1e-6)
