"""BEiT3-base over pictures and texts of realistic lengths: ours in every precision beside torchscale.

All are timed from JPEG bytes to vectors, several times over, of which the fastest counts: so whatever else the machine
does slows all alike, or none. Torchscale comes first, as ours has the C library keep large buffers from then on.
"""

from __future__ import annotations

import importlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import Measurement
from pipeline.beit3.inference import flops, multiplies_bytes
from pipeline.beit3.network import SIZES, BEiT3
from pipeline.beit3.tokenizer import pad
from pipeline.encode import batching
from pipeline.encode.beit3 import BEiT3Items
from pipeline.images.pixels import normalised, squares
from pipeline.ops.device import gemm_rate, pick

PADDED = 128  # of the reference's texts, as people do; longer ones are cut
DECILES = (6, 39, 61, 80, 103, 128, 128, 128, 128, 128, 128)
"""of tokens, cut at 128: title, brand, categories and description of 3,143 products of Amazon Industrial & Scientific
(2018), as all-MiniLM-L6-v2 splits them; half of them are longer than 128"""
SHAPE = SIZES["base"]
ITEMS, TURN, PASS, WORKERS = (24, 8, 8, 1) if pick().type == "cpu" else (8192, 2048, 256, 16)
"""items in all, in a turn, in a forward pass; threads that decode"""
ROUNDS = 3
PRECISIONS = ["float32", "bfloat16", *(["int8"] if multiplies_bytes(pick()) else [])]
COSINE = 0.999
"""to torchscale's float32, that each vector of a way keeps if it is to count"""

Way = Callable[[Sequence[bytes], slice], Tensor]
"""pictures of all items, which of them to encode -> float32 [n, D]"""


class _Ids:
    """Stands for a tokenizer that was trained on 64,010 pieces: text `i` is item i's ids."""

    def __init__(self, ids: Sequence[np.ndarray]) -> None:
        self.ids = ids

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[np.ndarray]:
        return [self.ids[int(text)][:max_tokens] for text in texts]


def run() -> Measurement:
    """Encode the same items with the same weights in every way, and hold each vector against torchscale's float32."""
    network, rng = _random(), np.random.default_rng(0)
    lengths = np.interp((np.arange(ITEMS) + 0.5) / ITEMS, np.linspace(0, 1, len(DECILES)), DECILES).astype(int)
    ids = [rng.integers(4, SHAPE.vocab, n) for n in rng.permutation(lengths)]
    pictures = [_jpeg(rng) for _ in ids]
    padded = _torchscale(network)
    theirs = {f"torchscale {'bfloat16' if half else 'float32'}": _padded(padded, ids, half) for half in (False, True)}
    ours = {f"ours {precision}": _ours(network, ids, precision) for precision in PRECISIONS}
    found, seconds = {}, {}
    for ways in (theirs, ours):
        for results, more in zip((found, seconds), _in_turn(ways, pictures), strict=True):
            results |= more
    exact = found["torchscale float32"]
    cosines = {name: float(torch.cosine_similarity(x, exact).min()) for name, x in found.items()}
    per_s = {name: ITEMS / total for name, total in seconds.items()}
    fastest = max((p for p in PRECISIONS if cosines[f"ours {p}"] >= COSINE), key=lambda p: per_s[f"ours {p}"])
    rates = {precision: gemm_rate(precision, 1.0) for precision in PRECISIONS}
    one = sum(flops(SHAPE, True, len(x)) for x in ids) / ITEMS
    return Measurement(
        ours=per_s[f"ours {fastest}"],
        reference=per_s["torchscale float32"],
        unit="items/s",
        higher_is_better=True,
        limit=rates[fastest] / one,
        limit_is=f"{fastest} products of this machine, over the operations of an item without padding",
        what=f"{ITEMS} items in batches of {PASS}, image {SHAPE.image}, texts of {lengths.mean():.0f} tokens on "
        f"average, JPEG bytes to vectors, ours in {fastest}; the reference: torchscale in float32, padded to {PADDED}",
        details={
            "items_per_s": per_s,
            "ratio_to_torchscale_float32": {p: per_s[f"ours {p}"] / per_s["torchscale float32"] for p in PRECISIONS},
            "ratio_to_torchscale_bfloat16": {p: per_s[f"ours {p}"] / per_s["torchscale bfloat16"] for p in PRECISIONS},
            "smallest_cosine_to_torchscale_float32": cosines,
            "smallest_cosine_less_the_mean_item": {
                name: float(torch.cosine_similarity(x - exact.mean(0), exact - exact.mean(0)).min())
                for name, x in found.items()
            },
            "gemm_gflop_per_s": {precision: rate / 1e9 for precision, rate in rates.items()},
            "share_of_gemm_rate": {p: per_s[f"ours {p}"] * one / rate for p, rate in rates.items()},
            "gflop_an_item": one / 1e9,
            "threads": torch.get_num_threads(),
        },
    )


def _jpeg(rng: np.random.Generator) -> bytes:
    """Return a picture as the images stage stores it: shorter side 256, some structure."""
    coarse = Image.fromarray(rng.integers(0, 256, (32, 40, 3), np.uint8))
    out = io.BytesIO()
    coarse.resize((320, 256), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def _ours(network: BEiT3, ids: Sequence[np.ndarray], precision: str) -> Way:
    encoder = BEiT3Items(network, _Ids(ids), PADDED, precision)  # type: ignore[arg-type]

    def way(pictures: Sequence[bytes], rows: slice) -> Tensor:
        texts = [str(i) for i in range(rows.start, rows.stop)]
        return torch.from_numpy(batching.encode(encoder, texts, pictures[rows], PASS, workers=WORKERS).vectors)

    return way


def _random() -> BEiT3:
    """Return a network that was not trained; BEiT3's own way to begin takes a minute."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = BEiT3(SHAPE).eval()
    network.to_empty(device=pick())
    for name, p in network.named_parameters():
        p.data.normal_(float(p.ndim == 1 and name.endswith("weight")), 0.02)
    return network


def _torchscale(network: BEiT3) -> nn.Module:
    """Return their network with our weights."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    with torch.device("meta"):
        theirs: nn.Module = importlib.import_module("reference").beit3(SHAPE)
    state = {name.removeprefix("beit3."): value for name, value in network.state_dict().items()}
    theirs.load_state_dict(state, assign=True)
    return theirs.eval()


def _padded(theirs: nn.Module, ids: Sequence[np.ndarray], bfloat16: bool) -> Way:
    tokens, padding = (torch.from_numpy(x) for x in pad(ids, PADDED))

    def way(pictures: Sequence[bytes], rows: slice) -> Tensor:
        found = []
        with torch.autocast(pick().type, torch.bfloat16) if bfloat16 else nullcontext(), torch.inference_mode():
            for start in range(rows.start, rows.stop, PASS):
                part = slice(start, min(start + PASS, rows.stop))
                whole = theirs(
                    textual_tokens=tokens[part].to(pick()),
                    visual_tokens=normalised(squares(pictures[part], SHAPE.image)).to(pick()),
                    text_padding_position=padding[part].to(pick()),
                )
                found.append(whole["encoder_out"][:, 0].float().cpu())
        return torch.cat(found)

    return way


def _in_turn(ways: dict[str, Way], pictures: Sequence[bytes]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return each way's vectors [ITEMS, D] and seconds."""
    found: dict[str, list[Tensor]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way(pictures, slice(0, 2))  # the first pass builds kernels
    for start in range(0, ITEMS, TURN):
        rows, fastest = slice(start, min(start + TURN, ITEMS)), dict.fromkeys(ways, float("inf"))
        for name, way in [*ways.items()] * ROUNDS:
            started = time.perf_counter()
            vectors = way(pictures, rows)
            fastest[name] = min(fastest[name], time.perf_counter() - started)
            found[name] = [*found[name][: start // TURN], vectors]
        seconds = {name: total + fastest[name] for name, total in seconds.items()}
    return {name: torch.cat(parts) for name, parts in found.items()}, seconds
