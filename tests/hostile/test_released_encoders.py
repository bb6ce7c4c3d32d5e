"""Encoders and probes of a hostile release, whose manifest agrees: one line, from `verify` and from what loads them.

Whatever is read ends so or is right, in memory of the sound release's order; the fuzz has every value of every file.
"""

from __future__ import annotations

import json
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import coded
import numpy as np
import pytest
import torch
from processes import started
from safetensors.numpy import load, save

from pipeline.beit3 import stored
from pipeline.beit3.config import SIZES, Config, MiniConfig
from pipeline.beit3.mini import Mini
from pipeline.beit3.network import BEiT3
from pipeline.errors import UserError
from pipeline.layout import EncoderFiles
from pipeline.release import encoded, encoder, verify
from tests.hostile.fuzz import encoders as fuzzed
from tests.hostile.test_foreign_release import line

BEIT3 = "encoders/beit3"
CONFIG = {
    "layers": (10**9, "'layers': "),
    "image": (10**9, "'image': "),
    "patch": (7, "patches of 7"),
    "vocab": (10**6, "text_embed.weight is F32"),
    "width": (128, "is F32"),
    "heads": (3, "3 heads"),
    "ffn": (65, "ffn.A.fc1.weight is F32 [64, 64], expected F32 [65, 64]"),
    "positions": (-1, "'positions': "),
    "codes": (8, "mim_head.weight"),
    "mlm": ("yes", "'mlm': "),
    "more": (1, "'more': "),
}
FACTS = {
    "batch_size": (0, "'batch_size'"),
    "image_size": (10**9, "'image_size'"),
    "image_quality": (0, "'image_quality'"),
    "reads": (["sound"], "'reads.0'"),
    "weights": ("../../x", "'weights'"),
    "packages": ({"": "1"}, "'packages."),
    **dict.fromkeys(("huggingface", "clip", "beit3-untrained", "minilm"), ("", "")),
}
"""key -> wrong value, and what names it; or names of encoders that no release has"""


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


def test_expected_shapes_are_those_of_the_networks() -> None:
    for config in (SIZES["small"], Config(image=4, patch=2, width=6, heads=3, layers=1, codes=5, mlm=True)):
        made = {name: tuple(x.shape) for name, x in BEiT3(config).state_dict().items()}
        assert dict(stored.expected(config)) == made
    for mini in (MiniConfig(), MiniConfig((4, 3), 9, width=6, heads=3, layers=1, codes=5, pieces=7)):
        with torch.device("meta"):
            made = {name: tuple(x.shape) for name, x in Mini(mini).state_dict().items()}
        assert dict(stored.expected_of_mini(mini)) == made


@pytest.mark.parametrize("key", CONFIG)
def test_a_config_that_the_weights_do_not_bear_out_is_one_line(release: Path, key: str) -> None:
    value, fault = CONFIG[key]
    changed(release, f"{BEIT3}/config.json", **{key: value})
    assert fault in line("verify", release)
    with pytest.raises(UserError, match=r"config\.json|encoder\.safetensors"):
        encoder.load(release, "beit3")


@pytest.mark.parametrize("key", FACTS)
def test_an_encoder_json_outside_its_schema_is_one_line(release: Path, key: str) -> None:
    value, fault = FACTS[key]
    changed(release, f"{BEIT3}/encoder.json", **({key: value} if fault else {"encoder": key}))
    if fault:
        found = line("verify", release)
        assert fault in found or "used_by" in found  # which is checked first
    with pytest.raises(UserError, match=r"encoder\.json" if fault else f"'{key}'"):
        encoder.load(release, "beit3")


@pytest.mark.parametrize("file", ["encoder.safetensors", "whitening.safetensors"])
def test_weights_that_are_not_those_of_the_config_are_one_line(release: Path, file: str) -> None:
    name = f"{BEIT3}/{file}"
    sound = (release / name).read_bytes()
    for number, data in enumerate(fuzzed.tensors_of(sound)):
        put(release, name, data)
        assert file in line("verify", release), number
        with pytest.raises(UserError, match=file.replace(".", r"\.")):
            encoder.load(release, "beit3")


def test_a_tokenizer_of_more_pieces_than_the_network_is_one_line(release: Path) -> None:
    path = release / f"{BEIT3}/encoder.safetensors"
    arrays = load(path.read_bytes())
    table = np.ascontiguousarray(arrays["beit3.text_embed.weight"][:-3])
    put(release, f"{BEIT3}/encoder.safetensors", save(arrays | {"beit3.text_embed.weight": table}))
    changed(release, f"{BEIT3}/config.json", vocab=len(table))
    assert "tokenizer.spm: has " in line("verify", release)
    with pytest.raises(UserError, match="tokenizer"):
        encoder.load(release, "beit3")


def test_an_encoder_of_another_width_than_its_features_is_one_line(release: Path) -> None:
    arrays = {"mean": np.zeros(64, np.float32), "map": np.eye(64, 9, dtype=np.float32)}
    put(release, f"{BEIT3}/whitening.safetensors", save(arrays))
    assert "9 or 64 numbers" in line("verify", release)
    with pytest.raises(UserError, match="9 numbers"):
        encoder.load(release, "beit3")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda found: found["zero_shot"].pop("chance"), "no figures of chance"),
        (lambda found: found["zero_shot"].update(beit3={}), "lacks figures that chance has"),
        (lambda found: found["zero_shot"].update(chance={"hit@10": "x"}), "'zero_shot.chance"),
        (lambda found: found.update(verdicts=7), "'verdicts'"),
        (lambda found: found.update(processed={"width": -1}), "'processed.width'"),
    ],
)
def test_probes_outside_their_schema_are_one_line(release: Path, change, fault: str) -> None:  # type: ignore[no-untyped-def]
    found = json.loads((release / "probes.json").read_text())
    change(found)
    put(release, "probes.json", json.dumps(found).encode())
    assert fault in line("verify", release)


def encode_many(release: Path) -> None:
    with suppress(UserError):
        encoded.vectors(encoder.load(release, "beit3"), ["a red ball"] * 300, [None] * 300)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def peak(release: Path) -> int:
    return int(started(encode_many, release).communicate()[0])


def test_memory_is_that_of_the_sound_release(release: Path) -> None:
    sound = peak(release)
    for name, key in (("config.json", "layers"), ("config.json", "vocab"), ("encoder.json", "batch_size")):
        whole = (release / BEIT3 / name).read_bytes()
        changed(release, f"{BEIT3}/{name}", **{key: 1 << 20})
        assert peak(release) < 1.2 * sound, key
        put(release, f"{BEIT3}/{name}", whole)


def test_finite_weights_of_infinite_products_are_one_line(release: Path) -> None:
    path = release / f"{BEIT3}/encoder.safetensors"
    arrays = {name: np.full_like(x, 3e38) for name, x in load(path.read_bytes()).items()}
    put(release, f"{BEIT3}/encoder.safetensors", save(arrays))
    for path in sorted(release.glob("encoders/*/encoder.json")):  # else these are others than the fingerprint's
        changed(release, str(path.relative_to(release)), fingerprint={})
    assert len(list(verify(release))) == 4
    with pytest.raises(UserError, match="not finite"):
        encoded.vectors(encoder.load(release, "beit3"), ["red ball"], [None])
