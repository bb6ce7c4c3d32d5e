"""Hostile feature files and weight files: each is refused in one line, and no memory is reserved."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from pipeline.beit3 import checkpoints, released
from pipeline.beit3.config import Config
from pipeline.beit3.network import BEiT3
from pipeline.compare import feature_set
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.vectors.matching import match

ASINS = [f"A{i}" for i in range(toy.ITEMS)]


def npy(header: str | bytes, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + data


def saved(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.ones((6, 2)))
    return out.getvalue()


SHAPE = "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {})}}\n"
NPY = {
    "nothing": (b"", "not a readable .npy file"),
    "text": (b"a,b\n", "not a readable .npy file"),
    "a zip of arrays": (zipped(), "not a readable .npy file"),
    "terabytes that are not there": (npy(SHAPE.format(6, 10**12)), "promises 24,000,000,000,000 bytes, and it has 0"),
    "beyond 64 bits": (npy(SHAPE.format(6, 10**30)), "promises"),
    "less than none": (npy(SHAPE.format(-6, -2), b"\0" * 48), "(-6, -2)"),
    "cut off": (saved(np.ones((6, 2)))[:-1], "promises 96 bytes, and it has 95"),
    "too long": (saved(np.ones((6, 2))) + b"\0", "promises 96 bytes, and it has 97"),
    "no width": (saved(np.ones((6, 0), np.float32)), "is float32 (6, 0), expected numbers [items, width]"),
    "no rows": (saved(np.ones((0, 2), np.float32)), "(0, 2)"),
    "one dimension": (saved(np.ones(6)), "(6,)"),
    "three dimensions": (saved(np.ones((6, 2, 1))), "(6, 2, 1)"),
    "objects": (saved(np.array([[None]] * 6, object), allow_pickle=True), "not a readable .npy file"),
    "text in it": (saved(np.full((6, 2), "a")), "<U1"),
    "complex": (saved(np.ones((6, 2), complex)), "complex128"),
    "a header that is no literal": (npy("__import__('os')\n"), "not a readable .npy file"),
    "a header of brackets": (npy("(" * 9000), "not a readable .npy file"),
    "a header that is cut off": (npy("{'descr': '<f4', ")[:-3], "not a readable .npy file"),
    "a header with NUL": (npy("{'descr'\0\n"), "not a readable .npy file"),
    "a header that is no text": (npy(b"\xff\xfe\n"), "not a readable .npy file"),
    "a type that is none": (npy(SHAPE.format(6, 2).replace("<f4", "<q9")), "not a readable .npy file"),
    "a shape that is none": (npy(SHAPE.format("'a'", 2)), "not a readable .npy file"),
    "an unknown version": (npy(SHAPE.format(6, 2), b"\0" * 48, (9, 9)), "not a readable .npy file"),
}


@pytest.mark.parametrize(("data", "error"), NPY.values(), ids=NPY)
@pytest.mark.parametrize("by", ["the source", "compare"])
def test_a_hostile_npy_is_refused_in_one_line(tmp_path: Path, by: str, data: bytes, error: str) -> None:
    path = tmp_path / "f.npy"
    path.write_bytes(data)
    layout = Layout(tmp_path, "shop")
    ways = {"the source": lambda: match(path, ASINS).rows(0, 6)}
    ways["compare"] = lambda: feature_set.read(str(path), layout, ASINS)
    with pytest.raises(UserError) as caught:
        ways[by]()
    message = str(caught.value).removeprefix(str(path))
    assert error in message
    assert message.isprintable()
    assert len(message) < 300


def tensors() -> dict[str, tuple[object, bool]]:
    """Return values to save, and whether each may be a tensor of a checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch gives up
        quantised = torch.quantize_per_tensor(torch.ones(6, 2), 0.1, 0, torch.qint8)
        compressed = torch.eye(6).to_sparse_csr()
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    odd = {"a list": [1], "text": "x", "nothing": None, "sparse": torch.eye(6).to_sparse(), "compressed": compressed}
    odd |= {"quantised": quantised, "complex": torch.ones(6, 2, dtype=torch.complex64), "nested": nested}
    odd |= {"without data": torch.ones(6, 2, device="meta"), "terabytes": torch.ones(1).expand(6, 10**12)}
    plain = {"one number": torch.tensor(1.0), "one dimension": torch.ones(6), "no width": torch.ones(6, 0)}
    plain["three dimensions"] = torch.ones(6, 2, 1)
    return {name: (value, False) for name, value in odd.items()} | {name: (x, True) for name, x in plain.items()}


@pytest.mark.parametrize("kind", tensors())
def test_a_hostile_pth_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    value, is_plain = tensors()[kind]
    path = tmp_path / "f.pth"
    torch.save(value, path)
    with pytest.raises(UserError) as caught:
        feature_set.read(str(path), Layout(tmp_path, "shop"), ASINS)
    assert str(caught.value).isprintable()
    if not is_plain:
        torch.save({"model": {"a": torch.ones(2), "b": value}} if isinstance(value, torch.Tensor) else value, path)
        with pytest.raises(UserError) as caught:
            checkpoints.read(path)
        assert str(caught.value).isprintable()


def test_tensors_without_names_and_shared_many_times_are_refused(tmp_path: Path) -> None:
    shared = torch.ones(1000)
    torch.save({1: shared}, tmp_path / "f.pth")
    with pytest.raises(UserError, match="without named tensors"):
        checkpoints.read_checkpoint(tmp_path / "f.pth")
    torch.save({f"t{i}": shared for i in range(100)}, tmp_path / "f.pth")
    with pytest.raises(UserError, match="share their memory many times over"):
        checkpoints.read_checkpoint(tmp_path / "f.pth")


def test_tied_weights_are_read(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    torch.save({"model": {"table": tied, "head": tied, "row": tied[0]}}, tmp_path / "f.pth")
    read = checkpoints.read(tmp_path / "f.pth")
    assert torch.equal(read["head"], tied)
    assert torch.equal(read["row"], tied[0])


TINY = Config(image=32, patch=8, vocab=58, width=64, layers=2, heads=1, ffn=96, positions=40, codes=20, mlm=True)


def test_a_weight_of_another_rank_is_refused_in_one_line() -> None:
    network = BEiT3(TINY)
    weights = dict(network.state_dict())
    for name in (name for name in weights if not name.startswith("mim_head.")):  # that may be another's
        for wrong in (torch.tensor(1.0), torch.ones(3), weights[name][None]):
            with pytest.raises(UserError) as caught:
                released.load_beit3(network, weights | {name: wrong}, "f.pth")
            assert str(caught.value).isprintable(), name
            assert str(caught.value).startswith("f.pth"), name
