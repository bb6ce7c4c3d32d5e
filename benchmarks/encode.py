"""BEiT3-base over images and texts of realistic lengths: ours beside torchscale, in float32 and bfloat16."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import Measurement
from pipeline import encode
from pipeline.encoders.beit3 import SIZES, BEiT3, Config

ITEMS, BATCH, REFERENCE_BATCH, PADDED = 48, 8, 8, 128
MEDIAN, SPREAD = 40, 0.7  # of text lengths, log-normal, cut at PADDED: titles with some descriptions


def run() -> Measurement:
    """Encode the same items with the same weights in every way, and hold each vector against float32's."""
    shape = SIZES["base"]
    torch.manual_seed(0)
    network = BEiT3(shape).eval()
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEDIAN), SPREAD, ITEMS).astype(int), 5, PADDED)
    ids = torch.from_numpy(rng.integers(4, shape.vocab, (ITEMS, PADDED)))
    images = torch.from_numpy(rng.standard_normal((ITEMS, 3, shape.image, shape.image), np.float32))
    padding = torch.arange(PADDED)[None] >= torch.from_numpy(lengths)[:, None]

    ours, ours_at = _timed(lambda: _ours(network, images, ids, lengths))
    theirs = _torchscale(shape, network)
    plain, plain_at = _timed(lambda: _padded(theirs, images, ids, padding, bfloat16=False))
    _, half_at = _timed(lambda: _padded(theirs, images, ids, padding, bfloat16=True))
    cosine = float(torch.cosine_similarity(ours, plain).min())
    work = sum(flops(shape, 1 + shape.patches + int(n)) for n in lengths)
    rate = _gemm_rate()
    return Measurement(
        ours=ITEMS / ours_at,
        reference=ITEMS / plain_at,
        unit="items/s",
        higher_is_better=True,
        limit=rate / (work / ITEMS),
        limit_is="bfloat16 products of this machine at 2048 x 768 x 3072, over the operations of an unpadded item",
        what=f"{ITEMS} items, image {shape.image}, texts of {lengths.mean():.0f} tokens on average; the reference: "
        f"torchscale in float32, texts padded to {PADDED}",
        details={
            "torchscale_bfloat16_items_per_s": ITEMS / half_at,
            "smallest_cosine_to_float32": cosine,
            "gemm_gflop_per_s": rate / 1e9,
            "gflop_an_item": work / ITEMS / 1e9,
            "threads": torch.get_num_threads(),
        },
    )


def flops(c: Config, tokens: int) -> float:
    """Return the multiply-adds times two of one item, last layer for CLS alone, as ours does it."""
    pair, one = 2 * c.width * c.width, 2 * c.width * c.ffn
    whole = tokens * (4 * pair + 2 * one) + 4 * tokens * tokens * c.width
    last = tokens * 2 * pair + 2 * pair + 2 * one + 4 * tokens * c.width
    return (c.layers - 1) * whole + last + c.patches * 2 * 3 * c.patch**2 * c.width


def _ours(network: BEiT3, images: Tensor, ids: Tensor, lengths: np.ndarray) -> Tensor:
    """Encode as the stage does: batches of like length, CLS alone in the last layer, bfloat16 weights."""
    out = torch.empty(len(images), network.config.width)
    half = network.to(torch.bfloat16)
    yes = np.ones(len(images), bool)
    for rows in encode.batches(yes, yes, lengths, BATCH):
        longest = int(lengths[rows].max())
        padding = torch.arange(longest)[None] >= torch.from_numpy(lengths[rows])[:, None]
        out[rows] = half.cls(images[rows].bfloat16(), ids[rows, :longest], padding if padding.any() else None).float()
    network.float()
    return out


def _padded(network: nn.Module, images: Tensor, ids: Tensor, padding: Tensor, bfloat16: bool) -> Tensor:
    found = []
    with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
        for start in range(0, len(images), REFERENCE_BATCH):
            rows = slice(start, start + REFERENCE_BATCH)
            whole = network(textual_tokens=ids[rows], visual_tokens=images[rows], text_padding_position=padding[rows])
            found.append(whole["encoder_out"][:, 0].float())
    return torch.cat(found)


def _torchscale(shape: Config, network: BEiT3) -> nn.Module:
    """Return their network with our weights."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    reference = importlib.import_module("reference")
    theirs: nn.Module = reference.beit3(shape)
    theirs.load_state_dict({name.removeprefix("beit3."): value for name, value in network.state_dict().items()})
    return theirs.eval()


def _timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    with torch.inference_mode():
        started = time.perf_counter()
        found = work()
    return found, time.perf_counter() - started


def _gemm_rate() -> float:
    a, b = torch.randn(2048, 768).bfloat16(), torch.randn(3072, 768).bfloat16()
    seconds = min(_timed(lambda: a @ b.T)[1] for _ in range(8))
    return 2 * 2048 * 768 * 3072 / seconds
