"""What the tests of the network share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture
def reference_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round softmax and GELU to float32 inside float64, as the reference does; ours does not."""
    gelu = F.gelu

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None) -> torch.Tensor:
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, float("-inf"))
        return F.softmax(logits, dim=-1, dtype=torch.float32).to(v.dtype) @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(F, "gelu", lambda x: gelu(x.float()).to(x.dtype))
