"""Which device is picked."""

import pytest
import torch

from pipeline.ops.device import pick


@pytest.mark.parametrize(
    ("cuda", "mps", "picked", "without_mps"),
    [(True, True, "cuda", "cuda"), (False, True, "mps", "cpu"), (False, False, "cpu", "cpu")],
)
def test_cuda_comes_before_mps_before_the_cpu(
    cuda: bool, mps: bool, picked: str, without_mps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert (pick().type, pick(mps=False).type) == (picked, without_mps)
