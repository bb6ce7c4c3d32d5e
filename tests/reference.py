"""torchscale 0.2.0, the authors' BEiT3, as an oracle (MIT licence; a test dependency)."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

from torch import nn

from alignrec.pipeline.beit3.config import Config


def beit3(c: Config) -> nn.Module:
    """Return their network in our shape; its names lack our prefix `beit3.`."""
    config, network = _torchscale()
    own = config(
        img_size=c.image, patch_size=c.patch, vocab_size=c.vocab, multiway=True, layernorm_embedding=False,
        normalize_output=True, no_output_layer=True, encoder_embed_dim=c.width, encoder_attention_heads=c.heads,
        encoder_ffn_embed_dim=c.ffn, encoder_layers=c.layers, max_source_positions=c.positions,
    )  # fmt: skip
    return network(own)


def _torchscale() -> tuple[Any, Any]:
    """Import torchscale without fairscale, which only sharded training needs."""
    if "fairscale" not in sys.modules:
        sharding = ModuleType("fairscale.nn")
        sharding.checkpoint_wrapper = sharding.wrap = None  # type: ignore[attr-defined]
        sys.modules |= {"fairscale": ModuleType("fairscale"), "fairscale.nn": sharding}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it imports timm by an old name
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3
    return EncoderConfig, BEiT3
