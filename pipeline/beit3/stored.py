"""The files of a trained BEiT3, which are untrusted in a release and checked against each other before loading.

Each number of config.json except `heads` is the size of a tensor, so that memory is bounded by the size of the weights.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.beit3.config import BEiT3Config, MiniConfig
from alignrec.pipeline.io import arrays
from alignrec.pipeline.io.arrays import AGAIN
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.linalg.projections import Whitening
from alignrec.pipeline.runtime.layout import EncoderFiles

if TYPE_CHECKING:
    from alignrec.pipeline.beit3.network import BEiT3

LARGEST_CONFIG, LARGEST_PIECES = 1 << 16, 1 << 22  # bytes
MOST_NAMES = 3  # names shown in a message
OF_LAYER = 32  # tensors in a layer of `mini`; BEiT3's has more
Shape = TypeVar("Shape", BEiT3Config, MiniConfig)


def is_mini(files: EncoderFiles) -> bool:
    return files.word_pieces.is_file()


def read_config(files: EncoderFiles, shape: type[Shape]) -> Shape:
    """Read config.json; UserError if it is damaged or does not fit the header of the weights."""
    path, raw = files.config, io.read_json(files.config, LARGEST_CONFIG)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: no shape of a network; {AGAIN}")
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()
    }
    try:
        read = shape(**given)
    except ValidationError as e:
        fault = e.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(
            f"{path}: '{one_line(where, 64)}': {one_line(fault['msg'].lower(), 160)}; {AGAIN}"
        ) from None
    _check_weights(read, files)
    return read


def check_files(files: EncoderFiles) -> set[int]:
    if is_mini(files):
        mini = read_config(files, MiniConfig)
        width = 2 * mini.width
        raw = io.read_json(files.word_pieces, LARGEST_PIECES)
        pieces = raw.get("pieces") if isinstance(raw, dict) else None
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise UserError(f"{files.word_pieces}: no list of word pieces; {AGAIN}")
        if (known := len({*pieces})) != len(pieces) or known != mini.vocab:
            raise UserError(
                f"{files.word_pieces}: has {known:,} pieces, and the network {mini.vocab:,}; {AGAIN}"
            )
    else:
        made = read_config(files, BEiT3Config)
        width = made.width
        with suppress(ModuleNotFoundError):  # unchecked without SentencePiece
            from alignrec.pipeline.beit3.tokenizer import Tokenizer

            try:
                ids = (
                    Tokenizer(files.tokenizer.read_bytes()).vocab
                    if files.tokenizer.is_file()
                    else 0
                )
            except UserError as e:
                raise UserError(f"{files.tokenizer}: {e}; {AGAIN}") from None
            if ids > made.vocab:
                raise UserError(
                    f"{files.tokenizer}: has {ids:,} ids, and the network {made.vocab:,}; {AGAIN}"
                )
    arrays.refuse_infinite(files.weights)
    return {width} | (
        {read_whitening(files, width).map.shape[1]} if files.whitening.is_file() else set()
    )


def read_whitening(files: EncoderFiles, width: int) -> Whitening:
    """Read the map of the network's vectors; UserError if it is damaged or has another width."""
    path = files.whitening
    tensors = arrays.read_tensors(path)
    try:
        if more := sorted(tensors.keys() - Whitening._fields):
            raise UserError(f"tensor '{one_line(more[0], 64)}' is of no such map")
        read = Whitening(
            arrays.require_tensor(tensors, "mean", width),
            arrays.require_tensor(tensors, "map", width, None),
        )
    except UserError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None
    if read.map.shape[1] > width:
        raise UserError(
            f"{path}: maps {width} numbers to {read.map.shape[1]}, which are more; {AGAIN}"
        )
    return read


def load_network(files: EncoderFiles) -> BEiT3:
    """Load the network on the CPU; UserError for damaged files or weights that are not finite. Needs torch."""
    made = read_config(files, BEiT3Config)
    import torch
    from safetensors.torch import load_file

    from alignrec.pipeline.beit3.network import BEiT3

    tensors = load_file(files.weights)
    if odd := [name for name, x in tensors.items() if not torch.isfinite(x).all()]:
        raise UserError(
            f"{files.weights}: tensor '{odd[0]}' holds values that are not finite; {AGAIN}"
        )
    with torch.device("meta"):  # skips drawing initial weights, which `assign` would replace
        loaded = BEiT3(made)
    loaded.load_state_dict(tensors, strict=True, assign=True)
    return loaded


def _check_weights(shape: BEiT3Config | MiniConfig, files: EncoderFiles) -> None:
    """Raise UserError unless the weights have the names and shapes of that network, if torch is installed."""
    there = arrays.read_shapes(files.weights)
    if shape.layers * OF_LAYER > len(there):  # rejected before the layers are built
        raise UserError(
            f"{files.weights}: {shape.layers:,} layers in {len(there):,} tensors; {AGAIN}"
        )
    try:
        import torch

        from alignrec.pipeline.beit3.mini import Mini
        from alignrec.pipeline.beit3.network import BEiT3
    except ModuleNotFoundError:
        return
    try:
        with torch.device("meta"):
            made = Mini(shape) if isinstance(shape, MiniConfig) else BEiT3(shape)
    except RuntimeError:  # a size overflows
        raise UserError(
            f"{files.config}: a network that is larger than any file; {AGAIN}"
        ) from None
    expected = {name: ("F32", tuple(tensor.shape)) for name, tensor in made.state_dict().items()}
    faults = [
        f"{one_line(name, 80)} is of no such network"
        for name in sorted(there.keys() - expected.keys())
    ]
    for name, wanted in expected.items():
        if name not in there:
            faults.append(f"{name} is not there")
        elif there[name] != wanted:
            kind, size = there[name]
            faults.append(f"{name} is {kind} {list(size)}, expected F32 {list(wanted[1])}")
    if faults:
        named = "; ".join(faults[:MOST_NAMES])
        raise UserError(f"{files.weights}: does not fit {files.config.name}: {named}; {AGAIN}")
