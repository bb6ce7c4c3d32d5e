"""Download published weight files, read them with PyTorch's restricted unpickler, fill networks.

Files are untrusted: nothing in them is run, and their tensors are checked before any is copied.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import split_pin
from alignrec.pipeline.io import archives
from alignrec.pipeline.io.arrays import is_plain
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.web.download import is_web_page, local_path

Fetch = Callable[[str, Path], None]  # downloads an address to a path, atomically

MAX_NAMES_SHOWN = 5  # in a message
MAX_TENSORS_PER_STORAGE = 4  # on average; tied weights are two or three
HEAD_BYTES = 512  # that tell a web page from a checkpoint

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
# the first digits of the sha256, as PyTorch's hub names files
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
PARAMETER_KEYS = ("model", "module", "state_dict")  # of published files

GIVE_WHOLE = "the downloaded .zip or .pth is the checkpoint itself: give that file, not unpacked"
GIVE_PUBLISHED = "give the file as published"


class LoadReport(NamedTuple):
    """Differences between a file and a network."""

    ignored: dict[str, str]  # unused tensor of the file -> reason
    fresh: list[str]  # parameters that the file lacks, which keep their initial values


def obtain_file(pinned_address: str, folder: Path, fetch: Fetch) -> Path:
    """Return a local file for a path or URL, downloaded to `folder`.

    UserError unless it matches the sha256 that pins it and the hash in its name, if any, as in
    `vqkd-d93179da.pth`.
    """
    address, sha256 = split_pin(pinned_address)
    path = local_path(address)
    if path is not None:
        if path.is_file():
            _check_hash(path, sha256)
        return path

    name = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
    if not PLAIN_NAME.fullmatch(name):
        raise UserError(f"{address}: its last part is no usable file name (letters, digits, . _ -)")
    path = folder / name
    if not path.exists():
        fetch(address, path)
    try:
        _check_hash(path, sha256)
    except UserError:
        path.unlink()  # so that the next call downloads it again
        raise
    return path


def _check_hash(path: Path, sha256: str | None) -> None:
    given = [sha256, *HASH_IN_NAME.findall(path.name)]
    expected = [digits.lower() for digits in given if digits]
    if not expected:
        return
    actual = io.sha256(path)
    for digits in expected:
        if not actual.startswith(digits):
            raise UserError(
                f"{path.name}: its sha256 is {actual}, expected {digits}; "
                "the file is damaged or another one"
            )


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
    content = _unpickle(path)
    if isinstance(content, Mapping):
        for key in PARAMETER_KEYS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break

    tensors = {}
    if isinstance(content, Mapping):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(f"{path}: a PyTorch file, but without named tensors; {GIVE_PUBLISHED}")
    odd = [name for name, tensor in tensors.items() if not is_plain(tensor)]
    if odd:
        raise UserError(
            f"{path}: {_list_names(odd)}: no plain tensors of numbers; {GIVE_PUBLISHED}"
        )
    _refuse_shared_memory(path, tensors)
    return tensors


def _unpickle(path: Path) -> Any:
    is_zipped = _is_zipped_checkpoint(path)
    try:
        # some files contain their training options
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, "cpu", weights_only=True, mmap=is_zipped)
    except pickle.UnpicklingError as e:
        why = "is no PyTorch checkpoint"
        match = re.search(r"GLOBAL (\S+)", str(e))
        if match:
            why = f"holds {match[1]}, which is no data, and was not run"
        raise UserError(f"{path}: {why}; {GIVE_PUBLISHED}") from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as e:
        raise _unreadable(path, e) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    lines = str(error).splitlines() or [type(error).__name__]
    why = lines[0].strip().rstrip(".")
    return UserError(f"{path}: not readable as a PyTorch checkpoint ({why}); fetch it again")


def _refuse_shared_memory(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError for tensors that are many times as large as the file."""
    storage_bytes = {}
    for tensor in tensors.values():
        storage = tensor.untyped_storage()
        storage_bytes[storage.data_ptr()] = storage.nbytes()
    tensor_bytes = sum(tensor.nbytes for tensor in tensors.values())
    if tensor_bytes > MAX_TENSORS_PER_STORAGE * sum(storage_bytes.values()):
        raise UserError(f"{path}: its tensors share their memory many times over; {GIVE_PUBLISHED}")


def _is_zipped_checkpoint(path: Path) -> bool:
    """Return whether a checkpoint is a zip; UserError for common mistakes, such as a web page."""
    if path.is_dir():
        raise UserError(f"{path}: a folder; {GIVE_WHOLE}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.name == "data.pkl":
        raise UserError(f"{path}: part of an unpacked checkpoint; {GIVE_WHOLE}")
    with path.open("rb") as f:
        head = f.read(HEAD_BYTES)
    if is_web_page(head):
        raise UserError(f"{path}: a web page (HTML), not a checkpoint; fetch the file itself")

    try:
        if not zipfile.is_zipfile(path):
            if head.startswith(b"PK\x03\x04"):
                size = path.stat().st_size
                raise UserError(f"{path}: truncated after {size:,} bytes; fetch it again")
            return False
        with zipfile.ZipFile(path) as file:
            members = file.namelist()
    except archives.FAULTS as e:
        raise _unreadable(path, e) from None
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in members):
        raise UserError(f"{path}: a zip of {_list_names(members)}, not a checkpoint; {GIVE_WHOLE}")
    return True


def fill_network(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    ignorable: Mapping[str, str],
    optional: tuple[str, ...],
) -> LoadReport:
    """Copy tensors into a network by name.

    UserError, before any is copied, for other names or shapes. `ignorable` maps prefixes of tensors
    that the network may lack to reasons; the file may lack `optional` tensors.
    """
    parameters = network.state_dict()
    absent = sorted(parameters.keys() - tensors.keys())
    ignored = {}
    unknown = []
    for name in sorted(tensors.keys() - parameters.keys()):
        reasons = [why for prefix, why in ignorable.items() if name.startswith(prefix)]
        if reasons:
            ignored[name] = reasons[0]
        else:
            unknown.append(name)

    misshapen = []
    for name, parameter in parameters.items():
        if name in tensors and tensors[name].shape != parameter.shape:
            actual = _format_shape(tensors[name].shape)
            expected = _format_shape(parameter.shape)
            misshapen.append(f"{name} ({actual}, expected {expected})")

    faults = {
        "the network does not know": unknown,
        "the file lacks": [name for name in absent if not name.startswith(optional)],
        "the file has in another shape": misshapen,
    }
    messages = [f"{what} {_list_names(names)}" for what, names in faults.items() if names]
    if messages:
        raise UserError(f"{where}: not the weights of this network: {'; '.join(messages)}")

    with torch.no_grad():
        for name in parameters.keys() & tensors.keys():
            parameters[name].copy_(tensors[name])
    return LoadReport(ignored, absent)


def _format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _list_names(names: Sequence[str]) -> str:
    listed = ", ".join(one_line(name, 100) for name in names[:MAX_NAMES_SHOWN])
    if len(names) > MAX_NAMES_SHOWN:
        listed += f" and {len(names) - MAX_NAMES_SHOWN} more"
    return listed
