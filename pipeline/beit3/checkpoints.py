"""Download published weight files, read them with PyTorch's restricted unpickler, and load them into a network by name.

Released BEiT3 and VQ-KD are beit3_{base,large}[_itc|_indomain]_patch16_224.pth and vqkd_encoder_base_decoder_*.pth. All
BEiT3 files share the backbone; -itc ones have contrastive heads instead of those for masked modelling.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from alignrec.pipeline import io
from alignrec.pipeline.beit3.config import FIRST_POSITION, SIZES, BEiT3Config
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.io import archives
from alignrec.pipeline.io.arrays import is_plain
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.web.download import is_web_page, local_path

if TYPE_CHECKING:
    from alignrec.pipeline.beit3.vqkd import VQKD

Fetch = Callable[[str, Path], None]  # downloads an address to a path, atomically

MOST_NAMES = 5  # names shown in a message
MOST_SHARED = 4  # maximum tensors that share memory; tied weights are two or three
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
NAMED_HASH = re.compile(
    r"-([0-9a-f]{8,64})\.\w+$"
)  # the first digits of the sha256, as PyTorch's hub names files
WHOLE = "the downloaded .zip or .pth is the checkpoint itself: give that file, not unpacked"

PATCH_POSITIONS = "beit3.encoder.embed_positions.A.weight"
TEXT_POSITIONS = "beit3.encoder.embed_positions.B.weight"
BEFORE_PATCHES = FIRST_POSITION + 1  # rows of vision positions before the patches: two unused, CLS
SPARE_PIECES = 8  # rows of the published text table beyond the pieces of beit3.spm, unused

CONTRAST = "serves image-text contrast; the feature is CLS before any projection"
BEIT3_UNUSED = dict.fromkeys(("language_head.", "vision_head.", "logit_scale"), CONTRAST)
BEIT3_UNUSED |= dict.fromkeys(("head.", "pooler."), "serves a task that the file was fine-tuned on")
VQKD_UNUSED = {
    **dict.fromkeys(
        ("decoder.", "decode_task_layer."), "rebuilds the teacher's features; tokens come before it"
    ),
    "teacher": "the teacher of its training",
    "scaling": "prepares images for the teacher of its training",
    "loss": "of its training",
    **dict.fromkeys(("quantize.cluster_size", "quantize.embedding."), "statistics of its training"),
}


class LoadReport(NamedTuple):
    """Differences between a file and a network."""

    ignored: dict[str, str]  # unused tensor of the file -> reason
    fresh: list[str]  # parameters that the file lacks, which keep their initial values


def obtain_file(address: str, folder: Path, sha256: str | None, fetch: Fetch) -> Path:
    """Return a local file for a path or URL, downloaded to `folder`.

    UserError unless it matches the given sha256 and the hash in its name, if any, as in `vqkd-d93179da.pth`.
    """
    path = local_path(address)
    if path is None:
        name = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
        if not PLAIN.fullmatch(name):
            raise UserError(
                f"{address}: its last part is no usable file name (letters, digits, . _ -)"
            )
        path = folder / name
        if not path.exists():
            fetch(address, path)
        try:
            _check_sum(path, sha256)
        except UserError:
            path.unlink()  # so that the next call downloads it again
            raise
    elif path.is_file():
        _check_sum(path, sha256)
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the parameters of a safetensors or PyTorch file; UserError for other files."""
    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as e:
        raise UserError(f"{path}: not a complete safetensors file ({e})") from None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the parameters of a PyTorch file without running code; UserError for other files."""
    zipped = _is_zipped_checkpoint(path)
    try:
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # some files contain their training options
            content = torch.load(path, "cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as e:
        match = re.search(r"GLOBAL (\S+)", str(e))
        why = (
            f"holds {match[1]}, which is no data, and was not run"
            if match
            else "is no PyTorch checkpoint"
        )
        raise UserError(f"{path}: {why}; give the file as published") from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as e:
        raise UserError(
            f"{path}: not readable as a PyTorch checkpoint ({_first_line(e)}); fetch it again"
        ) from None
    for key in (
        "model",
        "module",
        "state_dict",
    ):  # keys under which published files store the parameters
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(
            f"{path}: a PyTorch file, but without named tensors; give the file as published"
        )
    if odd := [name for name, tensor in tensors.items() if not is_plain(tensor)]:
        raise UserError(
            f"{path}: {_list_names(odd)}: no plain tensors of numbers; give the file as published"
        )
    held = sum(
        {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
        }.values()
    )
    if sum(tensor.nbytes for tensor in tensors.values()) > MOST_SHARED * held:
        raise UserError(
            f"{path}: its tensors share their memory many times over; give the file as published"
        )
    return tensors


def fill_network(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str, ignorable: Mapping[str, str],
    optional: tuple[str, ...],
) -> LoadReport:  # fmt: skip
    """Copy tensors into a network by name; UserError, before any is copied, for other names or shapes.

    `ignorable` maps prefixes of tensors that the network may lack to reasons; the file may lack `optional` tensors.
    """
    own = network.state_dict()
    extra, absent = sorted(tensors.keys() - own), sorted(own.keys() - tensors.keys())
    reasons = {
        n: next((w for start, w in ignorable.items() if n.startswith(start)), "") for n in extra
    }
    # common tensor -> its shape in the file and in the network
    shapes = {
        n: [" x ".join(map(str, x.shape)) or "scalar" for x in (tensors[n], own[n])]
        for n in own
        if n in tensors
    }
    faults = {
        "the network does not know": [n for n, why in reasons.items() if not why],
        "the file lacks": [n for n in absent if not n.startswith(optional)],
        "the file has in another shape": [
            f"{n} ({a}, expected {b})" for n, (a, b) in shapes.items() if a != b
        ],
    }
    messages = [f"{what} {_list_names(names)}" for what, names in faults.items() if names]
    if messages:
        raise UserError(f"{where}: not the weights of this network: {'; '.join(messages)}")
    with torch.no_grad():
        for name in own.keys() & tensors.keys():
            own[name].copy_(tensors[name])
    return LoadReport(reasons, absent)


def resize_grid(table: Tensor, grid: int) -> Tensor:
    old = round(len(table) ** 0.5)
    if old == grid:
        return table
    square = table.float().unflatten(0, (old, old)).permute(2, 0, 1)[None]  # [1, D, g, g]
    new = F.interpolate(
        square, (grid, grid), mode="bicubic", align_corners=False
    )  # [1, D, grid, grid]
    return new[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def _is_zipped_checkpoint(path: Path) -> bool:
    """Return whether a checkpoint is a zip; UserError for common mistakes, such as a web page."""
    if path.is_dir():
        raise UserError(f"{path}: a folder; {WHOLE}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.name == "data.pkl":
        raise UserError(f"{path}: part of an unpacked checkpoint; {WHOLE}")
    with path.open("rb") as f:
        head = f.read(512)
    if is_web_page(head):
        raise UserError(f"{path}: a web page (HTML), not a checkpoint; fetch the file itself")
    try:
        if not zipfile.is_zipfile(path):
            if head.startswith(b"PK\x03\x04"):
                raise UserError(
                    f"{path}: truncated after {path.stat().st_size:,} bytes; fetch it again"
                )
            return False
        with zipfile.ZipFile(path) as file:
            inside = file.namelist()
    except archives.FAULTS as e:
        raise UserError(
            f"{path}: not readable as a PyTorch checkpoint ({_first_line(e)}); fetch it again"
        ) from None
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in inside):
        raise UserError(f"{path}: a zip of {_list_names(inside)}, not a checkpoint; {WHOLE}")
    return True


def _check_sum(path: Path, sha256: str | None) -> None:
    expected = [digits.lower() for digits in (sha256, *NAMED_HASH.findall(path.name)) if digits]
    actual = io.sha256(path) if expected else ""
    if wrong := [digits for digits in expected if not actual.startswith(digits)]:
        raise UserError(
            f"{path.name}: its sha256 is {actual}, expected {wrong[0]}; the file is damaged or another one"
        )


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(one_line(name, 100) for name in names[:MOST_NAMES]) + more


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")


def published_shape(tensors: dict[str, Tensor], where: str) -> BEiT3Config:
    """Infer the shape of a published BEiT3 and its heads; UserError for other files."""
    try:
        width, _, patch, _ = tensors["beit3.vision_embed.proj.weight"].shape
        grid = round((len(tensors[PATCH_POSITIONS]) - BEFORE_PATCHES) ** 0.5)
        return BEiT3Config(
            image=grid * patch,
            patch=patch,
            vocab=len(tensors["beit3.text_embed.weight"]),
            width=width,
            layers=len(
                {name.split(".")[3] for name in tensors if name.startswith("beit3.encoder.layers.")}
            ),
            heads=max(
                1, width // 64
            ),  # not visible in any shape; released networks have 64 dimensions per head
            ffn=len(tensors["beit3.encoder.layers.0.ffn.A.fc1.weight"]),
            positions=len(tensors[TEXT_POSITIONS]),
            codes=len(tensors["mim_head.weight"]) if "mim_head.weight" in tensors else 0,
            mlm="mlm_head.weight" in tensors,
        )
    except KeyError as e:
        raise UserError(f"{where}: no BEiT3 weights: it lacks {e}") from None
    except (TypeError, IndexError, ValueError):
        raise UserError(
            f"{where}: no BEiT3 weights: a tensor has another number of dimensions"
        ) from None


def continued_shape(
    wanted: BEiT3Config, published: BEiT3Config, codes: int, pieces: int, where: str
) -> BEiT3Config:
    """Return the shape of a network that continues from published weights; UserError for another size or tokenizer."""
    if (published.width, published.layers) != (wanted.width, wanted.layers):
        sizes = {(size.width, size.layers): name for name, size in reversed(SIZES.items())}
        there, own = (
            f"{sizes.get((c.width, c.layers), 'a size of its own')} ({c.layers} layers, width {c.width})"
            for c in (published, wanted)
        )
        raise UserError(
            f"{where}: weights of {there}, but the network is {own}; change one of them"
        )
    if not 0 <= published.vocab - pieces <= SPARE_PIECES:
        raise UserError(
            f"{where}: its text table has {published.vocab:,} rows, but the tokenizer {pieces:,} ids; "
            "give the tokenizer that was published with the weights (beit3.spm)"
        )
    positions = max(wanted.positions, published.positions)
    return replace(wanted, vocab=published.vocab, positions=positions, codes=codes, mlm=True)


def load_beit3(network: BEiT3, tensors: dict[str, Tensor], where: str) -> LoadReport:
    """Fill a network of `continued_shape`, interpolating positions for other image sizes and longer texts.

    The file may lack a head, or have a MIM head for another visual tokenizer: such heads keep their initial weights.
    """
    wanted, published = network.config, published_shape(tensors, where)
    left_out: dict[str, str] = {}
    if published.codes != wanted.codes:
        why = f"predicts {published.codes:,} visual tokens, the network {wanted.codes or 'none'}"
        left_out |= {name: why for name in tensors if name.startswith("mim_head.")}
    if not wanted.mlm:
        left_out |= {
            name: "the network has no MLM head" for name in tensors if name.startswith("mlm_head.")
        }
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    patches, text = kept[PATCH_POSITIONS], kept[TEXT_POSITIONS]
    try:
        grown = torch.cat(
            [patches[:BEFORE_PATCHES], resize_grid(patches[BEFORE_PATCHES:], wanted.grid)]
        )
    except (RuntimeError, ValueError):
        raise UserError(
            f"{where}: {PATCH_POSITIONS} is {list(patches.shape)}, no table of square patches"
        ) from None
    if text.ndim != 2:
        raise UserError(
            f"{where}: {TEXT_POSITIONS} is {list(text.shape)}, no table of text positions"
        )
    if wanted.positions > len(text):  # interpolated for longer texts (arXiv 2306.15595)
        along = text[FIRST_POSITION:].float().T[None]  # [1, D, n - 2]
        new = F.interpolate(
            along, wanted.positions - FIRST_POSITION, mode="linear", align_corners=True
        )[0].T
        text = torch.cat([text[:FIRST_POSITION], new.to(text.dtype)])
    kept |= {PATCH_POSITIONS: grown, TEXT_POSITIONS: text[: wanted.positions]}
    loaded = fill_network(network, kept, where, BEIT3_UNUSED, HEADS)
    return loaded._replace(ignored=left_out | loaded.ignored)


def load_vqkd(path: Path, grid: int, heads: int | None = None) -> tuple[VQKD, LoadReport]:
    """Load VQ-KD with its positions interpolated to `grid` patches per side; UserError for other files."""
    from alignrec.pipeline.beit3 import vqkd  # loads timm, which takes two seconds

    tensors = read_weights(path)
    try:
        codes, code_width = tensors["quantize.embedding.weight"].shape
        width, _, patch, _ = tensors["encoder.patch_embed.proj.weight"].shape
        side = patch * round((tensors["encoder.pos_embed"].shape[1] - 1) ** 0.5)
        layers = len({name.split(".")[2] for name in tensors if name.startswith("encoder.blocks.")})
        heads = heads or max(1, width // vqkd.HEAD_WIDTH)
        published = vqkd.VQKDConfig(side, patch, width, layers, heads, codes, code_width)
        table = tensors["encoder.pos_embed"][0]  # [1+P, D]
        tensors["encoder.pos_embed"] = torch.cat([table[:1], resize_grid(table[1:], grid)])[None]
    except KeyError as e:
        raise UserError(f"{path}: no VQ-KD weights: it lacks {e}") from None
    except (TypeError, IndexError, ValueError, RuntimeError, ArithmeticError):
        raise UserError(
            f"{path}: no VQ-KD weights: a tensor has another number of dimensions"
        ) from None
    network = vqkd.VQKD(replace(published, image=grid * published.patch))
    loaded = fill_network(network, tensors, str(path), VQKD_UNUSED, ())
    return network.eval().requires_grad_(False), loaded
