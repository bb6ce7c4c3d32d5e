"""The optimiser of pre-training: AdamW with layer-wise learning rates, warm-up and cosine.

Source of the layer-wise rates: BEiT (arXiv 2106.08254). Layers near the input have lower rates, as official weights
have already learned them. Pieces of our own vocabulary have a higher one.
"""

import re

import torch
from torch import nn

from pipeline.ops.schedule import warmup_cosine
from pipeline.pretrain.params import Pretrain

BETAS = (0.9, 0.98)  # of AdamW, as BEiT
EPSILON = 1e-6
UNDECAYED = ("cls_token", "mask_token", "embed_positions", "image.positions", "text.positions")
PIECES = 10.0
"""learning rate of the embeddings of pieces beside that of the rest, unless weights are given: a piece of few items is
seen in few steps, and would else stay as it began"""
TEXT = "network.beit3.text_embed"
NEW = ("network.image.", "network.mim_head.", "network.mlm_head.", "teacher.")
"""what of `mini` starts from nothing, and learns as fast as pieces do; all else starts from MiniLM"""
LAYER = re.compile(r"network\.(?:beit3\.encoder\.)?layers\.(\d+)\.")
EMBEDDINGS = (
    TEXT, "network.beit3.vision_embed", "network.beit3.encoder.embed_positions", "network.image.", "network.text."
)  # fmt: skip


def adamw(model: nn.Module, layers: int, params: Pretrain) -> torch.optim.AdamW:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim >= 2 and not any(part in name for part in UNDECAYED)
        scale = params.layer_decay ** (layers + 1 - depth(name, layers))
        if name.startswith(NEW if params.size == "mini" else TEXT) and not params.init:
            scale *= PIECES
        groups.setdefault((scale, decayed), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": params.weight_decay if decayed else 0.0, "scale": scale}
            for (scale, decayed), members in groups.items()
        ],
        lr=params.lr,
        betas=BETAS,
        eps=EPSILON,
        fused=True,
    )


def depth(name: str, layers: int) -> int:
    if name.startswith(EMBEDDINGS):
        return 0
    return 1 + int(match[1]) if (match := LAYER.match(name)) else layers + 1


def set_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def learning_rate(step: int, steps: int, params: Pretrain) -> float:
    return warmup_cosine(step, steps, params.warmup, params.lr)
