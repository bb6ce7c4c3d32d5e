"""Feature maps: a vector for each cell of an image, which pre-training makes visual tokens from.

Letters: B batch, S image side, W width, G cells a side, N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.errors import UserError


def coarsest(strides: Sequence[int], side: int, grid: int) -> int:
    """Return which of a network's maps to read: the coarsest of at least `grid` cells a side, else the finest.

    Args:
        strides: pixels a cell of each map; of equal ones the last is read, which has the most layers before it.
        side: of the image, S.
        grid: cells a side that are wanted.
    """
    enough = [stride for stride in strides if math.ceil(side / stride) >= grid]
    stride = max(enough) if enough else min(strides)
    return len(strides) - 1 - list(reversed(strides)).index(stride)


def of_timm(network: Any, image: Tensor, grid: int) -> Tensor:
    """Return a map of a network of timm's, `coarsest`: float [B, 3, S, S] -> float32 [B, W, G, G].

    Raises:
        UserError: it has none.
    """
    if not hasattr(network, "forward_intermediates"):
        raise UserError(f"{type(network).__name__} of timm gives no feature map; take a ViT, a ConvNeXt or their like")
    strides = [int(info["reduction"]) for info in network.feature_info]
    index = coarsest(strides, image.shape[-1], grid)
    # norm: the last block of a ViT leaves a few channels hundreds of times as large as all others
    (maps,) = network.forward_intermediates(image, [index], norm=True, stop_early=True, intermediates_only=True)
    features: Tensor = maps
    return features.float()


def of_tokens(hidden: Tensor, cells: int) -> Tensor:
    """Return the map in a vision transformer's tokens: float [B, N, W] -> float32 [B, W, G, G].

    Args:
        hidden: those of the image come last, behind CLS and registers.
        cells: G G, as the image's side and the patch's have it; a network that merges patches has fewer.

    Raises:
        UserError: its tokens are no square.
    """
    cells = min(cells, hidden.shape[1])
    side = math.isqrt(cells)
    if side * side != cells:
        raise UserError(f"{hidden.shape[1]} tokens an image are no square map; take another network")
    return hidden[:, -cells:].transpose(1, 2).unflatten(2, (side, side)).float()  # [B, N, W] -> [B, W, G, G]
