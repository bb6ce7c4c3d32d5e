"""Rates of this machine: matrix products, a BEiT3 of the asked size, images, and trainings of recommenders.

They are measured in under a minute, and kept for the next call under a fingerprint of the machine.
"""

import hashlib
import io as bytes_io
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from PIL import Image
from pydantic import BaseModel, ValidationError

from pipeline import io
from pipeline.beit3.config import SIZES
from pipeline.beit3.network import BEiT3
from pipeline.evaluation.metrics import evaluate
from pipeline.graph import neighbours
from pipeline.images.decode import normalise
from pipeline.images.params import Images
from pipeline.interactions.split import Pairs, Split
from pipeline.models import MODELS, RELEASED
from pipeline.models.base import Batch, Inputs
from pipeline.ops.device import gemm_rate, pick
from pipeline.plan import operations
from pipeline.train.sampling import Sampler
from pipeline.versions import machine

SECONDS = 60.0
"""of calibration at most; models that it does not reach count as the released one"""
BUSY = 0.7
"""running programs a core, above which other programs slow the measurements down"""
USERS, ITEMS, EACH, WIDTH = (1000, 4000), (500, 2000), 8, 16
"""users and items of two generated data sets, interactions a user, width of features"""
STEPS, PICTURES, TOKENS = 3, 24, 32
"""timed steps of a training; images that are normalised; tokens of a text that a BEiT3 is timed on"""


class Training(BaseModel):
    """Seconds of a recommender on the two generated data sets."""

    build: tuple[float, float]
    """what comes before the first step"""
    step: tuple[float, float]
    """a batch; zero for what nothing trains"""


class Rates(BaseModel):
    """What a machine does in a second."""

    machine: dict[str, Any]
    busy: bool = False
    """whether other programs ran as they were measured"""
    gemm: dict[str, float] = {}
    """precision -> operations of matrix products"""
    double: float = 0.0
    """operations of NumPy's float64 products"""
    jpegs: float = 0.0
    """images of 500 x 500 that become images of the stage"""
    scores: float = 0.0
    """scores of a user and an item that are computed and ranked"""
    encoded: dict[str, float] = {}
    """size of BEiT3 -> operations of its forward pass"""
    trained: dict[str, float] = {}
    """size of BEiT3 -> operations of a training step"""
    models: dict[str, Training] = {}
    """recommender -> its seconds"""


def kept() -> Path:
    """Return the file of this machine's rates."""
    fingerprint = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("alignrec") / f"rates-{fingerprint}.json"


def measured(size: str, models: Iterable[str], seconds: float = SECONDS) -> Rates:
    """Return the machine's rates, those that are not kept yet measured now.

    Rates that were measured beside other programs are measured anew once the machine is idle.

    Args:
        size: of BEiT3 that pre-training and encoding take; empty: neither is asked for.
        seconds: of measuring at most.
    """
    path, until = kept(), time.perf_counter() + seconds
    before = rates = _read(path)
    busy = os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)
    if rates.busy and not busy:
        rates = Rates(machine=machine())
    if not rates.gemm:
        rates = rates.model_copy(update=_general())
    if size and size not in rates.trained:
        forward, step = _network(size)
        rates = rates.model_copy(
            update={"encoded": rates.encoded | {size: forward}, "trained": rates.trained | {size: step}}
        )
    for model in dict.fromkeys([RELEASED, *models]):  # the released one first, as others may count as it does
        if model not in rates.models and (model == RELEASED or time.perf_counter() < until):
            rates = rates.model_copy(update={"models": rates.models | {model: _training(model)}})
    if rates != before:
        rates = rates.model_copy(update={"busy": rates.busy or busy})
        io.write_json(path, rates.model_dump())
    return rates


def _read(path: Path) -> Rates:
    """Return the rates that are kept; a file that is not of this form counts as none."""
    try:
        return Rates.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Rates(machine=machine())


def _general() -> dict[str, Any]:
    x = np.random.default_rng(0).standard_normal((1024, 1024))
    picture = bytes_io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (63, 63, 3), np.uint8)
    Image.fromarray(pixels).resize((500, 500)).save(picture, "JPEG", quality=90)
    params = Images()
    one = _best(lambda: normalise(picture.getvalue(), params.size, params.quality, params.max_pixels), PICTURES)
    split, features = _generated(1)
    user, item = (np.ascontiguousarray(features[:1].repeat(n, 0)) for n in (split.n_users, split.n_items))
    ranked = _best(lambda: evaluate(torch.from_numpy(user), torch.from_numpy(item), split, "valid", [20]), 2)
    return {
        "gemm": {precision: gemm_rate(precision) for precision in ("float32", "bfloat16")},
        "double": 2 * 1024**3 / _best(lambda: x @ x, 3),
        "jpegs": 1 / one,
        "scores": len(np.unique(split.valid.users)) * split.n_items / ranked,
    }


def _network(size: str) -> tuple[float, float]:
    """Return the operations a second of a BEiT3's forward pass, and of a training step, in float32 or on a GPU."""
    device, c = pick(), operations.SHAPES[size]
    batch = 2 if device.type == "cpu" and c.width >= SIZES["base"].width else 16
    network = BEiT3(c).to(device)
    images = torch.zeros(batch, 3, c.image, c.image, device=device)
    tokens = torch.ones(batch, TOKENS, dtype=torch.int64, device=device)
    flop = batch * operations.whole(c, TOKENS)
    optimiser = torch.optim.AdamW(network.parameters())

    def forward() -> None:
        with torch.inference_mode():
            network(images, tokens).joined()[0, 0, 0].item()  # waits for a GPU

    def step() -> None:
        optimiser.zero_grad()
        loss = network(images, tokens).joined().square().mean()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for a GPU

    return flop / _best(forward, 2), operations.BACKWARD * flop / _best(step, 2)


def _training(model: str) -> Training:
    """Return the seconds of a recommender's start and of its steps, each on two data sets."""
    (small, first), (large, second) = (_timed(model, number) for number in range(2))
    return Training(build=(small, large), step=(first, second))


def _timed(model: str, number: int) -> tuple[float, float]:
    """Return the seconds that a model takes before it trains, and of a step."""
    split, features = _generated(number)
    kind, device = MODELS[model], pick()
    settings = kind.Params()
    edges = neighbours.neighbours(features, min(10, split.n_items)) if kind.needs else None
    torch.manual_seed(0)
    started = time.perf_counter()
    inputs = Inputs(split, torch.from_numpy(features).to(device) if kind.needs else None, edges, device)
    network = kind(inputs, settings).to(device)
    build = time.perf_counter() - started
    if not (weights := [p for p in network.parameters() if p.requires_grad]):
        return build, 0.0
    network.start_epoch()
    epoch = torch.from_numpy(Sampler(split).epoch(np.random.default_rng(0)))
    batch = Batch(*epoch[:, : settings.batch_size].to(device))
    optimiser = torch.optim.Adam(weights, lr=settings.lr)

    def step() -> None:
        loss = torch.stack(list(network.loss(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return build, _best(step, STEPS)


def _generated(number: int) -> tuple[Split, np.ndarray]:
    """Return one of the two data sets, and features float32 [I, WIDTH]."""
    rng, users, items = np.random.default_rng(number), USERS[number], ITEMS[number]
    pairs = np.unique(np.repeat(np.arange(users), EACH) * items + rng.integers(0, items, users * EACH))
    train, valid = (np.sort(part) for part in np.split(rng.permutation(pairs), [int(0.8 * len(pairs))]))
    parts = [Pairs((k // items).astype("i4"), (k % items).astype("i4")) for k in (train, valid)]
    features = rng.standard_normal((items, WIDTH), np.float32)
    return Split(users, items, parts[0], parts[1], parts[1]), features


def _best(work: Callable[[], object], times: int) -> float:
    """Return the least seconds of several runs; the first one, which is longer, is left out."""
    work()
    best = math.inf
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
