"""Encode JPEG images and texts of realistic length with BEiT3-base, compared with torchscale."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from alignrec.pipeline.beit3.config import BEIT3_CONFIGS
from alignrec.pipeline.beit3.encoders import BEiT3Items
from alignrec.pipeline.beit3.inference import count_flops
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.tokenizer import BOS, EOS, pad_rows
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_squares, normalise_pixels
from alignrec.pipeline.linalg.device import gemm_rate, is_bf16_fast, pick_device
from benchmarks import Measurement, _turns
from benchmarks._official import drawn
from benchmarks._turns import Turn, timed

PADDED = 128  # length to which the reference pads and truncates texts
# deciles of tokens per text, truncated at 128: title, brand, categories and description of 3,143 products of Amazon
# Industrial & Scientific (2018), tokenised by all-MiniLM-L6-v2; half of them are longer
DECILES = (6, 39, 61, 80, 103, 128, 128, 128, 128, 128, 128)
SHAPE = BEIT3_CONFIGS["base"]
# items, items per forward pass, decoding threads
ITEMS, PASS, WORKERS = (24, 8, 1) if pick_device().type == "cpu" else (8192, 256, 16)
PRECISIONS = ["float32", "bfloat16"] if is_bf16_fast(pick_device()) else ["float32"]
COSINE = 0.999  # minimum cosine of each vector to torchscale's in float32


class _Ids:
    """Tokenizer stub: the text "i" has the ids of item i."""

    vocab = SHAPE.vocab

    def __init__(self, ids: Sequence[np.ndarray]) -> None:
        self.ids = ids

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.ids[int(text)][1:-1] for text in texts]


def run() -> Measurement:
    """Encode the same items with the same weights and compare vectors with torchscale's in float32."""
    # separate processes, as our code changes the allocator's settings
    with _turns.process() as theirs, _turns.process() as ours:
        turns = {
            f"torchscale {precision}": partial(theirs, _torchscale, precision)
            for precision in PRECISIONS
        }
        turns |= {
            f"ours {precision}": partial(ours, encoded, precision) for precision in PRECISIONS
        }
        ways = _turns.take(turns, work=ITEMS, warm_up=True)
    vectors = {name: torch.from_numpy(way.last) for name, way in ways.items()}
    exact = vectors["torchscale float32"]
    cosines = {name: float(torch.cosine_similarity(x, exact).min()) for name, x in vectors.items()}
    per_s = {p: ITEMS / ways[f"ours {p}"].wall.median for p in PRECISIONS}
    fastest = max((p for p in PRECISIONS if cosines[f"ours {p}"] >= COSINE), key=lambda p: per_s[p])
    rates = {precision: gemm_rate(precision, 1.0) for precision in PRECISIONS}
    one = sum(count_flops(SHAPE, True, len(x)) for x in _ids()) / ITEMS
    return Measurement(
        ways=ways,
        ours=f"ours {fastest}",
        reference="torchscale float32",
        unit="items/s",
        higher_is_better=True,
        limit=rates[fastest] / one,
        limit_is=f"this machine's {fastest} GEMM rate, divided by the operations per item without padding",
        what=f"{ITEMS} items in batches of {PASS}, image {SHAPE.image}, texts of {np.mean([*map(len, _ids())]):.0f} "
        f"tokens on average, JPEG bytes to vectors; the reference: torchscale in float32, padded to {PADDED}",
        details={
            "ratio": {
                p: ways[f"ours {p}"].times_as_fast(ways[f"torchscale {p}"])._asdict()
                for p in PRECISIONS
            },
            "smallest_cosine_to_torchscale_float32": cosines,
            "gemm_gflop_per_s": {precision: rate / 1e9 for precision, rate in rates.items()},
            "share_of_gemm_rate": {p: per_s[p] * one / rate for p, rate in rates.items()},
            "gflop_an_item": one / 1e9,
            "threads": torch.get_num_threads(),
        },
    )


# --- inputs, generated in each process from the same seeds


@cache
def _ids() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = np.interp(
        (np.arange(ITEMS) + 0.5) / ITEMS, np.linspace(0, 1, len(DECILES)), DECILES
    ).astype(int)
    return [
        np.array([BOS, *rng.integers(4, SHAPE.vocab, n - 2), EOS]) for n in rng.permutation(lengths)
    ]


@cache
def _jpegs() -> list[bytes]:
    rng = np.random.default_rng(1)
    return [_jpeg(rng) for _ in range(ITEMS)]


def _jpeg(rng: np.random.Generator) -> bytes:
    """Return an image of the stage `images`: shorter side 256, some structure."""
    coarse = Image.fromarray(rng.integers(0, 256, (32, 40, 3), np.uint8))
    out = io.BytesIO()
    coarse.resize((320, 256), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@cache
def _network() -> BEiT3:
    with torch.device("meta"):
        network = BEiT3(SHAPE).eval()
    return drawn(network, 0).to(pick_device())


# --- ways


@cache
def _encoder(precision: str) -> BEiT3Items:
    return BEiT3Items(_network(), _Ids(_ids()), PADDED, 1, precision)  # type: ignore[arg-type]


def encoded(precision: str) -> Turn[np.ndarray]:
    encoder, texts = _encoder(precision), [str(i) for i in range(ITEMS)]
    return timed(
        lambda: batching.encode_items(encoder, texts, _jpegs(), PASS, workers=WORKERS).vectors
    )


@cache
def _their_network() -> nn.Module:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "beit3"))
    with torch.device("meta"):
        theirs: nn.Module = importlib.import_module("test_network").their_beit3(SHAPE)
    state = {name.removeprefix("beit3."): value for name, value in _network().state_dict().items()}
    theirs.load_state_dict(state, assign=True)
    return theirs.eval()


def _torchscale(precision: str) -> Turn[np.ndarray]:
    network, jpegs = _their_network(), _jpegs()
    tokens, padding = (torch.from_numpy(x) for x in pad_rows(_ids(), PADDED))

    def encode() -> np.ndarray:
        vectors = []
        for start in range(0, ITEMS, PASS):
            part = slice(start, start + PASS)
            whole = network(
                textual_tokens=tokens[part].to(pick_device()),
                visual_tokens=normalise_pixels(decode_squares(jpegs[part], SHAPE.image)).to(
                    pick_device()
                ),
                text_padding_position=padding[part].to(pick_device()),
            )
            vectors.append(whole["encoder_out"][:, 0].float().cpu())
        return torch.cat(vectors).numpy()

    mixed = precision == "bfloat16"
    with (
        torch.autocast(pick_device().type, torch.bfloat16) if mixed else nullcontext(),
        torch.inference_mode(),
    ):
        return timed(encode)
