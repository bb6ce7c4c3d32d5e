"""Weights of a hostile release, whose manifest agrees: one line, from `verify` and from what loads them.

The fuzz targets have every value of every file.
"""

from __future__ import annotations

import json
import shutil
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
from tests.hostile.fuzz import encoders as fuzzed

BEIT3 = "encoders/beit3"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded.with_encoders(tmp_path_factory.mktemp("published"), read=True).release


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "release")


def put(release: Path, name: str, data: bytes) -> None:
    fuzzed.put(release, name, data)


def changed(release: Path, name: str, **values: object) -> None:
    put(release, name, json.dumps(json.loads((release / name).read_text()) | values).encode())


def test_the_sound_release_is_right(release: Path) -> None:
    assert len(list(verify(release))) == 4
    assert encoder.load(release, "beit3").encoder.width == 8
    assert stored.check(EncoderFiles(release / BEIT3)) == {64, 8}


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
