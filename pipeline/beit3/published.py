"""The published BEiT3 and VQ-KD: their shapes, loading them by name, and going on from them.

Released files are beit3_{base,large}[_itc|_indomain]_patch16_224.pth and
vqkd_encoder_base_decoder_*.pth. All BEiT3 files share the backbone; -itc ones have contrastive
heads instead of those for masked modelling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from alignrec.pipeline.beit3.checkpoints import (
    LoadReport,
    fill_network,
    obtain_file,
    read_weights,
)
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, FIRST_POSITION, BEiT3Config
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.images import decode
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.progress import meter
from alignrec.pipeline.sources.base import Download
from alignrec.pipeline.web.download import fetch_file

if TYPE_CHECKING:
    from alignrec.pipeline.beit3.vqkd import VQKD

# path or URL of a published file, maybe pinned -> the local file
Obtain = Callable[[str], Path]

IMAGES_PER_PASS = 64  # of the visual tokenizer
BEIT3_HEAD_WIDTH = 64  # not visible in any shape; that of released networks
SPARE_PIECES = 8  # rows of the published text table beyond the pieces of beit3.spm, unused

PATCH_POSITIONS = "beit3.encoder.embed_positions.A.weight"
TEXT_POSITIONS = "beit3.encoder.embed_positions.B.weight"
BEFORE_PATCHES = FIRST_POSITION + 1  # rows of vision positions before the patches: two unused, CLS

# prefixes of tensors that the networks lack -> why they are not used
BEIT3_UNUSED = {
    "language_head.": "serves image-text contrast; the feature is CLS before any projection",
    "vision_head.": "serves image-text contrast; the feature is CLS before any projection",
    "logit_scale": "serves image-text contrast; the feature is CLS before any projection",
    "head.": "serves a task that the file was fine-tuned on",
    "pooler.": "serves a task that the file was fine-tuned on",
}
VQKD_UNUSED = {
    "decoder.": "rebuilds the teacher's features; tokens come before it",
    "decode_task_layer.": "rebuilds the teacher's features; tokens come before it",
    "teacher": "the teacher of its training",
    "scaling": "prepares images for the teacher of its training",
    "loss": "of its training",
    "quantize.cluster_size": "statistics of its training",
    "quantize.embedding.": "statistics of its training",
}


def make_obtain(layout: Layout, params: Download, progress: Callable[[], tqdm]) -> Obtain:
    def fetch_with_progress(address: str, target: Path) -> None:
        with progress() as bar:
            fetch_file(address, target, None, params.timeout, params.retries, meter(bar))

    def obtain(address: str) -> Path:
        return obtain_file(address, layout.published, fetch_with_progress)

    return obtain


def read_start(params: Pretrain, obtain: Obtain, pieces: int) -> dict[str, Tensor]:
    """Read the tensors of `init`; UserError for other files, another size or tokenizer."""
    assert params.init is not None
    tensors = read_weights(obtain(params.init))
    published = published_shape(tensors, params.init)
    continued_shape(BEIT3_CONFIGS[params.size], published, 0, pieces, params.init)
    return tensors


def start_network(
    params: Pretrain, tensors: dict[str, Tensor], codes: int, pieces: int, positions: int
) -> tuple[BEiT3, list[str]]:
    """Return a network that goes on from the tensors of `init`, and notes on what differs."""
    assert params.init is not None
    wanted = replace(BEIT3_CONFIGS[params.size], positions=positions)
    published = published_shape(tensors, params.init)
    network = BEiT3(continued_shape(wanted, published, codes, pieces, params.init))
    report = load_beit3(network, tensors, params.init)

    notes = [f"{name}: not used: {why}" for name, why in report.ignored.items()]
    notes += [f"{name}: new" for name in report.fresh]
    return network, notes


def predict_visual_tokens(
    params: Pretrain,
    obtain: Obtain,
    images: np.ndarray,
    shape: BEiT3Config,
    device: torch.device,
) -> tuple[np.ndarray, int]:
    """Return the VQ-KD tokens of uint8 [n, S, S, 3], int32 [n, P], and the number of codes."""
    assert params.vqkd is not None
    path = obtain(params.vqkd)
    tokenizer = load_vqkd(path, shape.grid)[0].to(device)
    out = np.empty((len(images), shape.patches), np.int32)
    for start in range(0, len(images), IMAGES_PER_PASS):
        stop = start + IMAGES_PER_PASS
        pixels = decode.normalise_pixels(np.array(images[start:stop])).to(device)
        out[start:stop] = tokenizer.tokens(pixels).cpu().numpy()
    return out, tokenizer.config.codes


def published_shape(tensors: Mapping[str, Tensor], where: str) -> BEiT3Config:
    """Infer the shape of a published BEiT3 and its heads; UserError for other files."""
    try:
        width, _, patch, _ = tensors["beit3.vision_embed.proj.weight"].shape
        patches = len(tensors[PATCH_POSITIONS]) - BEFORE_PATCHES
        has_mim_head = "mim_head.weight" in tensors
        return BEiT3Config(
            image=round(patches**0.5) * patch,
            patch=patch,
            vocab=len(tensors["beit3.text_embed.weight"]),
            width=width,
            layers=_count_layers(tensors, "beit3.encoder.layers."),
            heads=max(1, width // BEIT3_HEAD_WIDTH),
            ffn=len(tensors["beit3.encoder.layers.0.ffn.A.fc1.weight"]),
            positions=len(tensors[TEXT_POSITIONS]),
            codes=len(tensors["mim_head.weight"]) if has_mim_head else 0,
            mlm="mlm_head.weight" in tensors,
        )
    except KeyError as e:
        raise UserError(f"{where}: no BEiT3 weights: it lacks {e}") from None
    except (TypeError, IndexError, ValueError):
        raise UserError(
            f"{where}: no BEiT3 weights: a tensor has another number of dimensions"
        ) from None


def _count_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    names = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    return len({name.split(".")[0] for name in names})


def continued_shape(
    wanted: BEiT3Config, published: BEiT3Config, codes: int, pieces: int, where: str
) -> BEiT3Config:
    """Return the shape of a network that continues from published weights.

    UserError for another size or tokenizer.
    """
    if (published.width, published.layers) != (wanted.width, wanted.layers):
        raise UserError(
            f"{where}: weights of {_describe_size(published)}, "
            f"but the network is {_describe_size(wanted)}; change one of them"
        )
    if not 0 <= published.vocab - pieces <= SPARE_PIECES:
        raise UserError(
            f"{where}: its text table has {published.vocab:,} rows, "
            f"but the tokenizer {pieces:,} ids; "
            "give the tokenizer that was published with the weights (beit3.spm)"
        )
    positions = max(wanted.positions, published.positions)
    return replace(wanted, vocab=published.vocab, positions=positions, codes=codes, mlm=True)


def _describe_size(c: BEiT3Config) -> str:
    name = "a size of its own"
    for size, shape in BEIT3_CONFIGS.items():
        if (shape.width, shape.layers) == (c.width, c.layers):
            name = size
            break
    return f"{name} ({c.layers} layers, width {c.width})"


def load_beit3(network: BEiT3, tensors: Mapping[str, Tensor], where: str) -> LoadReport:
    """Fill a network of `continued_shape`.

    Positions are interpolated for other image sizes and longer texts. The file may lack a head, or
    have a MIM head for another visual tokenizer: such heads keep their initial weights.
    """
    config = network.config
    ignored = _unused_heads(config, tensors, published_shape(tensors, where))
    used = {name: tensor for name, tensor in tensors.items() if name not in ignored}
    used[PATCH_POSITIONS] = _fit_patch_positions(used[PATCH_POSITIONS], config.grid, where)
    used[TEXT_POSITIONS] = _fit_text_positions(used[TEXT_POSITIONS], config.positions, where)

    report = fill_network(network, used, where, BEIT3_UNUSED, HEADS)
    return report._replace(ignored=ignored | report.ignored)


def _unused_heads(
    config: BEiT3Config, tensors: Mapping[str, Tensor], published: BEiT3Config
) -> dict[str, str]:
    """Return the tensors of heads that the network lacks, or has for other tokens -> why."""
    unused = {}
    if published.codes != config.codes:
        predicted = f"predicts {published.codes:,} visual tokens"
        unused["mim_head."] = f"{predicted}, the network {config.codes or 'none'}"
    if not config.mlm:
        unused["mlm_head."] = "the network has no MLM head"

    reasons: dict[str, str] = {}
    for prefix, why in unused.items():
        reasons |= {name: why for name in tensors if name.startswith(prefix)}
    return reasons


def _fit_patch_positions(table: Tensor, grid: int, where: str) -> Tensor:
    try:
        patches = resize_grid(table[BEFORE_PATCHES:], grid)
        return torch.cat([table[:BEFORE_PATCHES], patches])
    except (RuntimeError, ValueError):
        raise UserError(
            f"{where}: {PATCH_POSITIONS} is {list(table.shape)}, no table of square patches"
        ) from None


def _fit_text_positions(table: Tensor, positions: int, where: str) -> Tensor:
    """Interpolate the table for longer texts (arXiv 2306.15595), or cut it."""
    if table.ndim != 2:
        raise UserError(
            f"{where}: {TEXT_POSITIONS} is {list(table.shape)}, no table of text positions"
        )
    if positions <= len(table):
        return table[:positions]
    along = table[FIRST_POSITION:].float().T[None]  # [1, D, n - 2]
    size = positions - FIRST_POSITION
    interpolated = F.interpolate(along, size, mode="linear", align_corners=True)[0].T
    return torch.cat([table[:FIRST_POSITION], interpolated.to(table.dtype)])


def resize_grid(table: Tensor, grid: int) -> Tensor:
    """Interpolate a table of the patches of a square, [g g, D], to another side."""
    side = round(len(table) ** 0.5)
    if side == grid:
        return table
    square = table.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]  # [1, D, g, g]
    resized = F.interpolate(square, (grid, grid), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def load_vqkd(path: Path, grid: int, heads: int | None = None) -> tuple[VQKD, LoadReport]:
    """Load VQ-KD with its positions interpolated to `grid` patches per side.

    UserError for other files.
    """
    from alignrec.pipeline.beit3 import vqkd  # loads timm, which takes two seconds

    tensors = read_weights(path)
    try:
        codes, code_width = tensors["quantize.embedding.weight"].shape
        width, _, patch, _ = tensors["encoder.patch_embed.proj.weight"].shape
        table = tensors["encoder.pos_embed"][0]  # [1+P, D]
        tensors["encoder.pos_embed"] = torch.cat([table[:1], resize_grid(table[1:], grid)])[None]
        config = vqkd.VQKDConfig(
            image=grid * patch,
            patch=patch,
            width=width,
            layers=_count_layers(tensors, "encoder.blocks."),
            heads=heads or max(1, width // vqkd.HEAD_WIDTH),
            codes=codes,
            code_width=code_width,
        )
    except KeyError as e:
        raise UserError(f"{path}: no VQ-KD weights: it lacks {e}") from None
    except (TypeError, IndexError, ValueError, RuntimeError, ArithmeticError):
        raise UserError(
            f"{path}: no VQ-KD weights: a tensor has another number of dimensions"
        ) from None

    network = vqkd.VQKD(config)
    report = fill_network(network, tensors, str(path), VQKD_UNUSED, ())
    return network.eval().requires_grad_(False), report
