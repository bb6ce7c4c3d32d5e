"""The contrastive training of CLIP: AdamW over batches of pairs, exact checkpoints at any step.

n pairs, B batch, S image side, T tokens a text.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate, Section, Share, Weight
from pipeline.encode.chunks import MOST, Most
from pipeline.errors import UserError
from pipeline.images.pixels import normalised
from pipeline.ops.checkpoint import Checkpoint, adam_state, named, part_of, restore_adam
from pipeline.ops.device import device_of, sent
from pipeline.ops.schedule import warmup_cosine
from pipeline.seeds import seed_for

HEAD = 32  # width of an attention head, as the small BEiT3's
BETAS = (0.9, 0.98)  # of AdamW, as CLIP and BEiT
EPSILON = 1e-6
SHARPEST = math.log(100)  # of the logit scale, as CLIP


class Pairs(NamedTuple):
    """Training data."""

    row: np.ndarray  # int64 [n], each pair's row in `pixels`
    ids: np.ndarray  # int64 [n, T], padded with 0
    pixels: np.ndarray  # uint8 [images, S, S, 3], a memory map
    target: np.ndarray | None = None
    """joint vector of frozen encoders, float32 [n, W], of length 1; None: no teachers"""


class ClipParams(Section):
    """Settings of kind `clip`; by default the shape of the small BEiT3."""

    patch: Positive = 8
    """side of a patch, in pixels"""
    image: Positive = 48
    """side of resized images, in pixels, a whole number of patches"""
    width: Annotated[int, Field(gt=0, multiple_of=HEAD)] = 128
    """width of both towers and of each half of the feature"""
    layers: Positive = 3
    """layers of each tower"""
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """tokens that are read at a time"""
    chunks: Most = MOST
    """chunks that are read of a longer text, cut between words; their vectors are averaged by tokens"""
    steps: Count = 3000
    """steps of the optimiser, the default of `pretrain`"""
    batch_size: Annotated[int, Field(ge=2)] = 16
    """pairs per step: all other images of the batch are negatives of a text"""
    held_out: Share = 0.02
    """share of items that are not trained on: those that `pretrain` with seed 0 holds out"""
    lr: Rate = 1e-3
    """peak learning rate of AdamW"""
    weight_decay: Weight = 0.05
    warmup: Share = 0.1
    """share of steps with rising learning rate, cosine after it"""
    clip: Rate = 3.0
    """largest norm of the gradient"""
    distill: Weight = 0.0
    """weight of regressing the teachers' vector, as `pretrain.distill`; the feature is then the map's output, `width`
    numbers at most"""
    distill_from: Annotated[list[Literal["minilm", "cnn", "tfidf"]], Field(min_length=1)] = ["minilm", "cnn", "tfidf"]
    """teachers, as `pretrain.distill_from`"""

    @field_validator("image")
    @classmethod
    def _whole(cls, image: int, info: ValidationInfo) -> int:
        if image % info.data.get("patch", 1):
            raise ValueError(f"not a whole number of patches of {info.data['patch']} pixels")
        return image


def train(
    network: Any, pairs: Pairs, params: ClipParams, seed: int, checkpoint: Checkpoint, done: Callable[[int], object]
) -> None:
    """Train open_clip's CLIP in place, from the checkpoint if there is one; UserError if the loss is not finite.

    `done` gets the number of steps of the checkpoint, then each step. The caller deletes the checkpoint.
    """
    from open_clip import ClipLoss

    optimizer, loss_of = _adamw(network, params), ClipLoss()
    per_epoch = math.ceil(len(pairs.ids) / params.batch_size)
    steps, begin = params.steps, 0
    if (saved := checkpoint.load()) is not None:
        tensors, begin = saved
        network.load_state_dict(part_of(tensors, "weights"))
        restore_adam(optimizer, part_of(tensors, "adam"))
    network.train()
    done(begin)
    for step in range(begin, steps):
        epoch, place = divmod(step, per_epoch)
        if step == begin or place == 0:
            order = np.random.default_rng(seed_for(seed, "order", epoch)).permutation(len(pairs.ids))
            plan = np.array_split(order, per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, steps, params.warmup, params.lr)
        _step(network, optimizer, loss_of, pairs, plan[place], params)
        done(1)
        if (step + 1) % checkpoint.every == 0 and step + 1 < steps:
            state = named("weights", network.state_dict()) | named("adam", adam_state(optimizer))
            checkpoint.save(state, step + 1)


def _step(
    network: Any, optimizer: torch.optim.AdamW, loss_of: nn.Module, pairs: Pairs, batch: np.ndarray, params: ClipParams
) -> None:
    """Take one step on the pairs `batch`, int64 [B]."""
    device = device_of(network)
    image = sent(normalised(pairs.pixels[pairs.row[batch]]), device)  # [B, 3, S, S]
    text = sent(torch.from_numpy(pairs.ids[batch]), device)
    images, texts = network.encode_image(image, normalize=True), network.encode_text(text, normalize=True)
    loss: Tensor = loss_of(images, texts, network.logit_scale.exp())
    if pairs.target is not None:
        read = network.teacher(torch.cat([images, texts], dim=1))
        near = torch.cosine_similarity(read, sent(torch.from_numpy(pairs.target[batch]), device), dim=1)
        loss = loss + params.distill * (1 - near).mean()
    if not torch.isfinite(loss):
        raise UserError(f"the contrastive loss is {loss.item()}; lower lr of kind clip")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), params.clip)
    optimizer.step()
    with torch.no_grad():
        network.logit_scale.clamp_(0, SHARPEST)


def _adamw(network: Any, params: ClipParams) -> torch.optim.AdamW:
    kept = network.no_weight_decay()
    parameters = list(network.named_parameters())
    decayed = [p for name, p in parameters if p.ndim >= 2 and name not in kept]
    others = [p for name, p in parameters if p.ndim < 2 or name in kept]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": params.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.lr, betas=BETAS, eps=EPSILON)
