"""Choice of the device, and matrix products on it."""

from pathlib import Path

import pytest
import torch
from processes import started

from alignrec.pipeline.harness import process
from alignrec.pipeline.ops import device
from alignrec.pipeline.ops.checkpoint import Checkpoint


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


def test_product_in_float32_and_bfloat16_is_as_close_as_they_are() -> None:
    """bfloat16 has a relative error of 2^-8; that of a sum of products is at most a few times as large."""
    exact = [drawn(*shape, dtype=torch.float64).requires_grad_() for shape in ((90, 64), (16, 64))]
    (exact[0] @ exact[1].T).square().sum().backward()
    for bf16, most in ((False, 1e-6), (True, 0.01)):
        ours = [table.detach().float().requires_grad_() for table in exact]
        device.matrix_product(*ours, bf16=bf16).square().sum().backward()
        for mine, theirs in zip(ours, exact, strict=True):
            assert (mine.grad - theirs.grad).norm() < most * theirs.grad.norm()


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


# --- a training resumed from a checkpoint equals an uninterrupted one


def say_growth(path: Path) -> None:
    """Print the growth of peak memory, in MiB, when 256 MiB are saved."""
    tensors = {"model": {"w": torch.ones(64 << 20)}}
    before = process.peak_mib()
    Checkpoint(path, 1).save(tensors, {"step": 1})
    print(process.peak_mib() - before)


def test_saving_takes_no_memory_as_large_as_the_tensors(tmp_path: Path) -> None:
    assert int(started(say_growth, tmp_path / "x.safetensors").communicate()[0]) < 128
    assert Checkpoint(tmp_path / "x.safetensors", 1).load() is not None
