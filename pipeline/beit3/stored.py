"""The files of a trained BEiT3, which are untrusted in a release.

They are checked against each other before loading. Each number of config.json except `heads` is the
size of a tensor, so that memory is bounded by the size of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
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

MAX_CONFIG_BYTES = 1 << 16
MAX_PIECES_BYTES = 1 << 22
MAX_FAULTS_SHOWN = 3  # in a message
TENSORS_PER_LAYER = 32  # of `mini`; BEiT3's layers have more

NetworkShape = TypeVar("NetworkShape", BEiT3Config, MiniConfig)
TensorShapes = dict[str, tuple[str, tuple[int, ...]]]  # name -> type and shape


def is_mini(files: EncoderFiles) -> bool:
    return files.word_pieces.is_file()


def read_config(files: EncoderFiles, kind: type[NetworkShape]) -> NetworkShape:
    """Read config.json; UserError if it is damaged or does not fit the header of the weights."""
    path = files.config
    raw = io.read_json(path, MAX_CONFIG_BYTES)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: no shape of a network; {AGAIN}")
    values: dict[str, Any] = {}
    for key, value in raw.items():
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        config = kind(**values)
    except ValidationError as e:
        fault = e.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(
            f"{path}: '{one_line(key, 64)}': {one_line(fault['msg'].lower(), 160)}; {AGAIN}"
        ) from None
    _check_weights(config, files)
    return config


def check_files(files: EncoderFiles) -> set[int]:
    """Check all files of a network; return the widths of vectors that it may make."""
    if is_mini(files):
        mini = read_config(files, MiniConfig)
        summary_width = 2 * mini.width
        _check_pieces(files, mini)
    else:
        beit3 = read_config(files, BEiT3Config)
        summary_width = beit3.width
        with suppress(ModuleNotFoundError):  # unchecked without SentencePiece
            _check_tokenizer(files, beit3)
    arrays.refuse_infinite(files.weights)

    widths = {summary_width}
    if files.whitening.is_file():
        widths.add(read_whitening(files, summary_width).map.shape[1])
    return widths


def _check_pieces(files: EncoderFiles, config: MiniConfig) -> None:
    path = files.word_pieces
    raw = io.read_json(path, MAX_PIECES_BYTES)
    pieces = raw.get("pieces") if isinstance(raw, dict) else None
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise UserError(f"{path}: no list of word pieces; {AGAIN}")
    distinct = len({*pieces})
    if distinct != len(pieces) or distinct != config.vocab:
        raise UserError(
            f"{path}: has {distinct:,} pieces, and the network {config.vocab:,}; {AGAIN}"
        )


def _check_tokenizer(files: EncoderFiles, config: BEiT3Config) -> None:
    from alignrec.pipeline.beit3.tokenizer import Tokenizer

    path = files.tokenizer
    if not path.is_file():
        return
    try:
        ids = Tokenizer(path.read_bytes()).vocab
    except UserError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None
    if ids > config.vocab:
        raise UserError(f"{path}: has {ids:,} ids, and the network {config.vocab:,}; {AGAIN}")


def read_whitening(files: EncoderFiles, width: int) -> Whitening:
    """Read the map of the network's vectors; UserError if it is damaged or has another width."""
    path = files.whitening
    tensors = arrays.read_tensors(path)
    try:
        unexpected = sorted(tensors.keys() - Whitening._fields)
        if unexpected:
            raise UserError(f"tensor '{one_line(unexpected[0], 64)}' is of no such map")
        mean = arrays.require_tensor(tensors, "mean", width)
        linear = arrays.require_tensor(tensors, "map", width, None)
    except UserError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None
    if linear.shape[1] > width:
        raise UserError(
            f"{path}: maps {width} numbers to {linear.shape[1]}, which are more; {AGAIN}"
        )
    return Whitening(mean, linear)


def load_network(files: EncoderFiles) -> BEiT3:
    """Load the network on the CPU; UserError for damaged files or weights that are not finite.

    Needs torch.
    """
    config = read_config(files, BEiT3Config)
    import torch
    from safetensors.torch import load_file

    from alignrec.pipeline.beit3.network import BEiT3

    tensors = load_file(io.require_plain(files.weights))
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{files.weights}: tensor '{name}' holds values that are not finite; {AGAIN}"
            )
    with torch.device("meta"):  # skips drawing initial weights, which `assign` would replace
        network = BEiT3(config)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network


def _check_weights(config: BEiT3Config | MiniConfig, files: EncoderFiles) -> None:
    """Raise UserError unless the weights have the names and shapes of that network.

    They are checked only if torch is installed.
    """
    actual = arrays.read_shapes(files.weights)
    if config.layers * TENSORS_PER_LAYER > len(actual):  # rejected before the layers are built
        raise UserError(
            f"{files.weights}: {config.layers:,} layers in {len(actual):,} tensors; {AGAIN}"
        )
    try:
        expected = _expected_shapes(config)
    except ModuleNotFoundError:
        return
    except RuntimeError:  # a size overflows
        raise UserError(
            f"{files.config}: a network that is larger than any file; {AGAIN}"
        ) from None

    faults = _differing_tensors(actual, expected)
    if faults:
        listed = "; ".join(faults[:MAX_FAULTS_SHOWN])
        raise UserError(f"{files.weights}: does not fit {files.config.name}: {listed}; {AGAIN}")


def _expected_shapes(config: BEiT3Config | MiniConfig) -> TensorShapes:
    import torch

    from alignrec.pipeline.beit3.mini import Mini
    from alignrec.pipeline.beit3.network import BEiT3

    with torch.device("meta"):
        network = Mini(config) if isinstance(config, MiniConfig) else BEiT3(config)
    return {name: ("F32", tuple(tensor.shape)) for name, tensor in network.state_dict().items()}


def _differing_tensors(
    actual: Mapping[str, tuple[str, tuple[int, ...]]], expected: TensorShapes
) -> list[str]:
    unexpected = sorted(actual.keys() - expected.keys())
    faults = [f"{one_line(name, 80)} is of no such network" for name in unexpected]
    for name, (_, expected_shape) in expected.items():
        if name not in actual:
            faults.append(f"{name} is not there")
        elif actual[name] != expected[name]:
            kind, shape = actual[name]
            faults.append(f"{name} is {kind} {list(shape)}, expected F32 {list(expected_shape)}")
    return faults
