"""The released BEiT3 and VQ-KD weights: the shape of their networks, and loading into networks of another shape.

Files: beit3_{base,large}[_itc|_indomain]_patch16_224.pth and vqkd_encoder_base_decoder_*.pth. All BEiT3 files share the
backbone; -itc ones have contrastive heads instead of those for masked modelling.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignrec.pipeline.beit3 import checkpoints
from alignrec.pipeline.beit3.config import FIRST_POSITION, SIZES, Config
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.io.errors import UserError

if TYPE_CHECKING:
    from alignrec.pipeline.beit3.vqkd import VQKD

PATCH_POSITIONS = "beit3.encoder.embed_positions.A.weight"
TEXT_POSITIONS = "beit3.encoder.embed_positions.B.weight"
BEFORE_PATCHES = FIRST_POSITION + 1  # rows of vision positions before the patches: two unused, CLS
SPARE_PIECES = 8  # rows of the published text table beyond the pieces of beit3.spm, unused

CONTRAST = "serves image-text contrast; the feature is CLS before any projection"
TASK = "serves a task that the file was fine-tuned on"
BEIT3_UNUSED = dict.fromkeys(("language_head.", "vision_head.", "logit_scale"), CONTRAST)
BEIT3_UNUSED |= dict.fromkeys(("head.", "pooler."), TASK)
VQKD_UNUSED = {
    "decoder.": "rebuilds the teacher's features; tokens come before it",
    "decode_task_layer.": "rebuilds the teacher's features; tokens come before it",
    "teacher": "the teacher of its training",
    "scaling": "prepares images for the teacher of its training",
    "loss": "of its training",
    "quantize.cluster_size": "statistics of its training",
    "quantize.embedding.": "statistics of its training",
}


def published_shape(tensors: dict[str, Tensor], where: str) -> Config:
    """Infer the shape of a published BEiT3, heads included; UserError for other files."""
    try:
        width, _, patch, _ = tensors["beit3.vision_embed.proj.weight"].shape
        grid = round((len(tensors[PATCH_POSITIONS]) - BEFORE_PATCHES) ** 0.5)
        return Config(
            image=grid * patch,
            patch=patch,
            vocab=len(tensors["beit3.text_embed.weight"]),
            width=width,
            layers=len({name.split(".")[3] for name in tensors if name.startswith("beit3.encoder.layers.")}),
            heads=max(1, width // 64),  # no tensor's shape has them; released networks have 64 dimensions a head
            ffn=len(tensors["beit3.encoder.layers.0.ffn.A.fc1.weight"]),
            positions=len(tensors[TEXT_POSITIONS]),
            codes=len(tensors["mim_head.weight"]) if "mim_head.weight" in tensors else 0,
            mlm="mlm_head.weight" in tensors,
        )
    except KeyError as e:
        raise UserError(f"{where}: no BEiT3 weights: it lacks {e}") from None
    except (TypeError, IndexError, ValueError):
        raise UserError(f"{where}: no BEiT3 weights: a tensor has another number of dimensions") from None


def continued_shape(wanted: Config, published: Config, codes: int, pieces: int, where: str) -> Config:
    """Return the shape of a network that continues from published weights; UserError for another size or tokenizer."""
    if (published.width, published.layers) != (wanted.width, wanted.layers):
        raise UserError(
            f"{where}: weights of {_describe_size(published)}, but the network is {_describe_size(wanted)}; "
            "change one of them"
        )
    if not 0 <= published.vocab - pieces <= SPARE_PIECES:
        raise UserError(
            f"{where}: its text table has {published.vocab:,} rows, but the tokenizer {pieces:,} ids; "
            "give the tokenizer that was published with the weights (beit3.spm)"
        )
    positions = max(wanted.positions, published.positions)
    return replace(wanted, vocab=published.vocab, positions=positions, codes=codes, mlm=True)


def load_beit3(network: BEiT3, tensors: dict[str, Tensor], where: str) -> checkpoints.Loaded:
    """Fill a network of `continued_shape`, interpolating positions for other image sizes and longer texts.

    It may lack either head, or have a MIM head for another visual tokenizer, which keeps its initial weights.
    """
    wanted, published = network.config, published_shape(tensors, where)
    left_out: dict[str, str] = {}
    if published.codes != wanted.codes:
        why = f"predicts {published.codes:,} visual tokens, the network {wanted.codes or 'none'}"
        left_out |= {name: why for name in tensors if name.startswith("mim_head.")}
    if not wanted.mlm:
        left_out |= {name: "the network has no MLM head" for name in tensors if name.startswith("mlm_head.")}
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    loaded = checkpoints.fill_network(network, _fit_positions(kept, wanted, where), where, BEIT3_UNUSED, HEADS)
    return loaded._replace(ignored=left_out | loaded.ignored)


def load_vqkd(path: Path, grid: int, heads: int | None = None) -> tuple[VQKD, checkpoints.Loaded]:
    """Load VQ-KD with its positions interpolated to `grid` patches per side; UserError for other files."""
    from alignrec.pipeline.beit3 import vqkd  # loads timm, which takes two seconds

    tensors = checkpoints.read_weights(path)
    try:
        published = vqkd.tokenizer_shape(tensors, heads)
        table = tensors["encoder.pos_embed"][0]  # [1+P, D]
        tensors["encoder.pos_embed"] = torch.cat([table[:1], checkpoints.resize_grid(table[1:], grid)])[None]
    except KeyError as e:
        raise UserError(f"{path}: no VQ-KD weights: it lacks {e}") from None
    except (TypeError, IndexError, ValueError, RuntimeError, ArithmeticError):
        raise UserError(f"{path}: no VQ-KD weights: a tensor has another number of dimensions") from None
    network = vqkd.VQKD(replace(published, image=grid * published.patch))
    loaded = checkpoints.fill_network(network, tensors, str(path), VQKD_UNUSED, ())
    return network.eval().requires_grad_(False), loaded


def _fit_positions(tensors: dict[str, Tensor], wanted: Config, where: str) -> dict[str, Tensor]:
    patches, text = tensors[PATCH_POSITIONS], tensors[TEXT_POSITIONS]
    try:
        grown = torch.cat([patches[:BEFORE_PATCHES], checkpoints.resize_grid(patches[BEFORE_PATCHES:], wanted.grid)])
    except (RuntimeError, ValueError):
        raise UserError(f"{where}: {PATCH_POSITIONS} is {list(patches.shape)}, no table of square patches") from None
    if text.ndim != 2:
        raise UserError(f"{where}: {TEXT_POSITIONS} is {list(text.shape)}, no table of text positions")
    return tensors | {PATCH_POSITIONS: grown, TEXT_POSITIONS: checkpoints.lengthen_positions(text, wanted.positions)}


def _describe_size(c: Config) -> str:
    known = [name for name, size in SIZES.items() if (size.width, size.layers) == (c.width, c.layers)]
    return f"{known[0] if known else 'a size of its own'} ({c.layers} layers, width {c.width})"
