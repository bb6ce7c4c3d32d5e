"""Published files that pre-training may start from: weights, text tokenizer, visual tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.beit3 import checkpoints, released
from pipeline.beit3.config import SIZES, Config
from pipeline.beit3.network import BEiT3
from pipeline.http.fetch import fetch, meter
from pipeline.images import pixels
from pipeline.layout import Layout
from pipeline.pretrain.params import Pretrain
from pipeline.sources.params import Download

BATCH = 64  # images a forward pass of the visual tokenizer


@dataclass(frozen=True)
class Cache:
    """The folder of published files on this machine, and the function that downloads one."""

    folder: Path
    fetch: checkpoints.Fetch

    def file(self, address: str, sha256: str | None) -> Path:
        return checkpoints.obtain(address, self.folder, sha256, self.fetch)

    def tensors(self, address: str, sha256: str | None) -> Path:
        return checkpoints.prepare(address, self.folder, sha256, self.fetch)


def cache(layout: Layout, params: Download, progress: Callable[[], tqdm]) -> Cache:
    def fetch_file(address: str, target: Path) -> None:
        with progress() as bar:
            fetch(address, target, None, params.timeout, params.retries, meter(bar))

    return Cache(layout.published, fetch_file)


def start(params: Pretrain, cache: Cache, pieces: int) -> dict[str, Tensor]:
    """Return the tensors that `init` names; UserError if no BEiT3 weights, or of another size or tokenizer."""
    assert params.init is not None
    tensors = checkpoints.read(cache.tensors(params.init, params.init_sha256))
    released.continued(SIZES[params.size], released.shape(tensors, params.init), 0, pieces, params.init)
    return tensors


def network(
    params: Pretrain, tensors: dict[str, Tensor], codes: int, pieces: int, positions: int
) -> tuple[BEiT3, list[str]]:
    assert params.init is not None
    wanted = replace(SIZES[params.size], positions=positions)
    shape = released.shape(tensors, params.init)
    beit3 = BEiT3(released.continued(wanted, shape, codes, pieces, params.init))
    loaded = released.load_beit3(beit3, tensors, params.init)
    return beit3, [f"{n}: not used: {why}" for n, why in loaded.ignored.items()] + [f"{n}: new" for n in loaded.fresh]


def visual_tokens(
    params: Pretrain, cache: Cache, images: np.ndarray, shape: Config, device: torch.device
) -> tuple[np.ndarray, int]:
    """Return the VQ-KD tokens of uint8 [n, S, S, 3], int32 [n, P], and how many tokens there are."""
    assert params.vqkd is not None
    path = cache.tensors(params.vqkd, params.vqkd_sha256)
    tokenizer = released.load_vqkd(path, shape.grid)[0].to(device)
    out = np.empty((len(images), shape.patches), np.int32)
    for first in range(0, len(images), BATCH):
        batch = pixels.normalised(np.array(images[first : first + BATCH])).to(device)
        out[first : first + BATCH] = tokenizer.tokens(batch).cpu().numpy()
    return out, tokenizer.codes
