"""Published checkpoints, imitated: read, converted and resized, or refused with a reason."""

import argparse
import io as memory
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from webserver import Folder, listening

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import checkpoints, published
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, BEiT3Config
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.io.errors import UserError
from benchmarks import _official

TINY = BEiT3Config(image=32, patch=8, vocab=58, width=64, layers=2, heads=1, ffn=96, positions=40, codes=20, mlm=True)


def official_bytes(tensors: dict[str, torch.Tensor], **beside: object) -> bytes:
    """A file with the layout of published ones: a zip with the folder `archive`, tensors under `model`."""
    buffer = memory.BytesIO()
    _official.save(tensors, buffer, **beside)
    return buffer.getvalue()


def parameters(config: BEiT3Config = TINY, seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return BEiT3(config).state_dict()


def nothing(address: str, target: Path) -> None:
    raise AssertionError(f"nothing should be fetched, {address} was")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "beit3_tiny.pth"
    path.write_bytes(official_bytes(parameters()))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    with listening(Folder(tmp_path / "served")) as server:
        yield server.address


# --- what people give in place of a checkpoint


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, ("harm-was-done",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(official_bytes({"a": torch.ones(1)}, more=Harm()))
    with pytest.raises(UserError, match=r"a\.pth: holds \S+mkdir"):
        checkpoints.read_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        ({"model": {"a": torch.ones(2)}}, {}),
        ({"module": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)}, {}),
        ({"a": torch.ones(2), "epoch": 3}, {"_use_new_zipfile_serialization": False}),
    ],
)
def test_tensors_are_found_in_published_files(
    tmp_path: Path, tensors: dict[str, object], options: dict[str, bool]
) -> None:
    torch.save(tensors, tmp_path / "a.zip", **options)
    assert checkpoints.read_checkpoint(tmp_path / "a.zip").keys() == {"a"}


def wrong(case: str, file: Path) -> Path:
    """Write files that users may mistake for a checkpoint."""
    folder, path = file.parent / "unpacked", file.parent / "a.pth"
    zipfile.ZipFile(file).extractall(folder)
    if case in ("missing", "unpacked"):
        return {"missing": path, "unpacked": folder}[case]
    if case == "its pickle":
        return folder / "archive" / "data.pkl"
    if case == "packed again":
        with zipfile.ZipFile(path, "w") as packed:
            for one in (folder / "archive").rglob("*"):
                packed.write(one, one.relative_to(folder / "archive"))
    elif case == "packed twice":
        with zipfile.ZipFile(path, "w") as packed:
            packed.write(file, "weights/beit3.pth")
    elif case == "without names":
        torch.save([torch.ones(1)], path)
    elif case == "truncated":
        torch.save({"model": parameters()}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        path.write_bytes({"a web page": b"<!DOCTYPE html><title>x</title>", "text": b"version 1\n", "empty": b""}[case])
    return path


@pytest.mark.parametrize(
    ("case", "fact"),
    [
        ("missing", "no such file"), ("unpacked", "a folder"), ("its pickle", "data.pkl"), ("packed again", "a zip"),
        ("packed twice", "a zip"), ("without names", "named tensors"), ("truncated", "readable"),
        ("a web page", "HTML"), ("text", "PyTorch"), ("empty", "PyTorch"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_in_one_line_that_names_it(file: Path, case: str, fact: str) -> None:
    path = wrong(case, file)
    with pytest.raises(UserError) as caught:
        checkpoints.read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert fact in message
    assert "\n" not in message


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_reported_with_its_length(file: Path, share: float) -> None:
    data = file.read_bytes()[: int(file.stat().st_size * share)]
    file.write_bytes(data)
    with pytest.raises(UserError, match=rf"beit3_tiny\.pth: truncated after {len(data):,} bytes"):
        checkpoints.read_checkpoint(file)


# --- checksums and URLs


def test_a_checksum_is_checked_wherever_it_is_given(file: Path, tmp_path: Path) -> None:
    true = io.sha256(file)
    checkpoints.obtain_file(f"{file}#sha256={true.upper()}", tmp_path / "made", nothing)
    with pytest.raises(UserError, match=rf"beit3_tiny\.pth: its sha256 is {true}, expected {'0' * 64}"):
        checkpoints.obtain_file(f"{file}#sha256={'0' * 64}", tmp_path / "made", nothing)
    named = file.rename(tmp_path / f"vqkd-{true[:8]}.pth")
    assert checkpoints.obtain_file(str(named), tmp_path, nothing) == named
    wrong = named.rename(tmp_path / "vqkd-00000000.pth")
    with pytest.raises(UserError, match="expected 00000000"):
        checkpoints.obtain_file(str(wrong), tmp_path, nothing)


@pytest.mark.parametrize("pin", ["#sha256=", "#sha256=abc", f"#sha256={'g' * 64}"])
def test_a_pin_has_the_whole_hash(pin: str) -> None:
    with pytest.raises(ValueError, match="all 64 digits of the file's hash"):
        Pretrain(size="small", init=f"weights.pth{pin}")


# --- BEiT3


def test_the_shape_is_read_from_the_file() -> None:
    assert published.published_shape(parameters(), "a.pth") == TINY
    bare = replace(TINY, codes=0, mlm=False)
    assert published.published_shape(parameters(bare), "a.pth") == bare
    for size in ("base", "large"):
        with torch.device("meta"):
            shape = replace(BEIT3_CONFIGS[size], codes=8192, mlm=True)
            assert published.published_shape(BEiT3(shape).state_dict(), "a.pth") == shape


def test_names_and_shapes_are_compared_both_ways_before_anything_is_copied() -> None:
    given = parameters()
    del given["beit3.encoder.layer_norm.B.bias"]
    given["beit3.encoder.surprise"] = torch.ones(1)
    given["beit3.encoder.layer_norm.A.weight"] = torch.ones(63)
    network = BEiT3(TINY)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        published.load_beit3(network, given, "a.pth")
    message = str(caught.value)
    assert "the network does not know beit3.encoder.surprise" in message
    assert "the file lacks beit3.encoder.layer_norm.B.bias" in message
    assert "beit3.encoder.layer_norm.A.weight (63, expected 64)" in message
    assert "\n" not in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_positions_are_interpolated_for_another_image_size() -> None:
    """A ramp along the rows of the grid stays a ramp, and the entries before the patches are unchanged."""
    given = parameters()
    table = given[published.PATCH_POSITIONS]
    table[3:] = torch.arange(4.0).repeat_interleave(4)[:, None]  # the patch's row on the 4 x 4 grid
    network = BEiT3(replace(TINY, image=64))
    published.load_beit3(network, given, "a.pth")
    actual = network.beit3.encoder.embed_positions.A.weight.detach()
    assert actual.shape == (3 + 64, 64)
    assert torch.equal(actual[:3], table[:3])
    grid = actual[3:].unflatten(0, (8, 8))[:, :, 0]
    torch.testing.assert_close(grid, grid[:, :1].expand_as(grid))
    ramp = grid[:, 0]
    assert (ramp.diff() > 0).all()
    torch.testing.assert_close(ramp + ramp.flip(0), torch.full((8,), 3.0))
    np.testing.assert_allclose(ramp[2:6], [0.75, 1.25, 1.75, 2.25], atol=0.1)  # the kernel bends a straight line a bit


def test_a_network_continues_only_with_the_tokenizer_and_the_size_of_its_weights() -> None:
    given = replace(TINY, codes=0, mlm=False)
    wanted = replace(given, image=64, vocab=1, positions=4)
    assert published.continued_shape(wanted, given, 20, 50, "a.pth") == replace(
        TINY, image=64
    )  # 58 rows, of which 8 are spare
    for pieces in (49, 59):
        with pytest.raises(UserError, match=rf"58 rows, but the tokenizer {pieces} ids; .* \(beit3\.spm\)"):
            published.continued_shape(wanted, given, 20, pieces, "a.pth")
    with pytest.raises(UserError, match=r"size of its own .*network is large"):
        published.continued_shape(BEIT3_CONFIGS["large"], given, 20, 50, "a.pth")
