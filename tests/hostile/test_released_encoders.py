"""Encoders of a hostile release, whose manifest agrees: one line, from `verify` and from what loads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import coded
import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from pipeline.beit3 import released, stored
from pipeline.beit3.config import Config
from pipeline.beit3.network import BEiT3
from pipeline.errors import UserError
from pipeline.layout import EncoderFiles
from pipeline.release import encoded, encoder, verify
from schemas import ContractError
from tests.hostile.fuzz.releases import put

BEIT3 = "encoders/beit3"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded.with_encoders(tmp_path_factory.mktemp("published"), read=True).release


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "release")


def changed(release: Path, name: str, **values: object) -> None:
    put(release, name, json.dumps(json.loads((release / name).read_text()) | values).encode())


def test_the_sound_release_is_right(release: Path) -> None:
    assert len(list(verify(release))) == 4
    assert encoder.load(release, "beit3").encoder.width == 8
    assert stored.check(EncoderFiles(release / BEIT3)) == {64, 8}


WRONG = {
    f"{BEIT3}/config.json": {
        **{"layers": 10**9, "image": 10**9, "patch": 7, "vocab": 10**6, "width": 128, "heads": 3, "ffn": 65},
        **{"positions": -1, "codes": 8, "mlm": "yes", "more": 1},
    },
    f"{BEIT3}/encoder.json": {
        **{"batch_size": 0, "image_size": 10**9, "image_quality": 0, "reads": ["sound"], "weights": "../../x"},
        **{"packages": {"": "1"}, "encoder": "huggingface"},
    },
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in WRONG for key in WRONG[name]])
def test_a_wrong_value_is_refused_in_one_line(release: Path, name: str, key: str) -> None:
    changed(release, name, **{key: WRONG[name][key]})
    refused(release)


def test_a_shape_whose_size_overflows_is_refused_in_one_line(release: Path) -> None:
    changed(release, f"{BEIT3}/config.json", image=1 << 24, patch=1, width=1 << 24)
    refused(release)


def refused(release: Path) -> None:
    with pytest.raises((UserError, ContractError)) as e:  # noqa: PT012
        list(verify(release))
        encoded.vectors(encoder.load(release, "beit3"), ["a red ball"], [None])
    assert (len(str(e.value)) < 2000, str(e.value).isprintable()) == (True, True)


def tensors_of(sound: bytes) -> Iterator[bytes]:
    """Yield a file of weights with another shape, type, name or value of a tensor, and what is no such file."""
    arrays = load(sound)
    first = sorted(arrays)[0]
    x = arrays[first]
    for other in (x[..., None], x.astype(np.float64), x.astype(np.int64), x[:0], np.full_like(x, np.nan)):
        yield save(arrays | {first: np.ascontiguousarray(other)})
    yield save({**arrays, "more": x})
    yield save({key: x for key, x in arrays.items() if key != first})
    yield sound[:-1]
    yield sound + b"\0"
    yield (1 << 60).to_bytes(8, "little") + sound[8:]
    yield b"\x80\x04cos\nsystem\n(S'true'\ntR."


@pytest.mark.parametrize("name", ["encoder.safetensors", "whitening.safetensors"])
def test_wrong_tensors_are_refused_in_one_line(release: Path, name: str) -> None:
    for data in tensors_of((release / BEIT3 / name).read_bytes()):
        put(release, f"{BEIT3}/{name}", data)
        refused(release)


def test_finite_weights_of_infinite_products_are_one_line(release: Path) -> None:
    path = release / f"{BEIT3}/encoder.safetensors"
    arrays = {name: np.full_like(x, 3e38) for name, x in load(path.read_bytes()).items()}
    put(release, f"{BEIT3}/encoder.safetensors", save(arrays))
    for path in sorted(release.glob("encoders/*/encoder.json")):  # else these are others than the fingerprint's
        changed(release, str(path.relative_to(release)), fingerprint={})
    assert len(list(verify(release))) == 4
    with pytest.raises(UserError, match="not finite"):
        encoded.vectors(encoder.load(release, "beit3"), ["red ball"], [None])


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
