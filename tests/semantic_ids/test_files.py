"""codes.json and codebooks.safetensors of anybody: what does not fit is one line that names the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coding import SHAPE, fitted, groups
from safetensors.numpy import load_file, save_file

from pipeline.errors import UserError
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS

X = groups()
FACTS = {
    "features": "f", "features_sha256": "0", "width": 10, "method": "residual-kmeans", "settings": {}, "levels": 3,
    "codes": 8, "collisions": "suffix", "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            method = fitted(name, X, SHAPE)
            files.write_codebooks(made[name], method)
            files.write_facts(made[name], files.Facts.model_validate(FACTS | {"method": name}))
        return made[name]

    return folder


def copied(source: Path, to: Path) -> Path:
    for name in (files.CODEBOOKS, files.FACTS):
        (to / name).write_bytes((source / name).read_bytes())
    return to


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        files.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"method": "residual-kmean"}, "'method': no 'residual-kmean'; did you mean 'residual-kmeans'?"),
        ({"levels": 0}, "'levels': input should be greater than or equal to 1, found 0"),
        ({"levels": 10**9}, "'levels': input should be less than or equal to 16"),
        ({"codes": "8"}, "'codes': input should be a valid integer, found '8'"),
        ({"width": -1}, "'width': input should be greater than 0, found -1"),
        ({"collisions": "drop"}, "'collisions': input should be 'keep', 'suffix' or 'reassign', found 'drop'"),
        ({"colours": 3}, "unknown key 'colours'"),
    ],
)
def test_facts(whole: Callable[[str], Path], tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    folder = copied(whole("residual-kmeans"), tmp_path)
    (folder / files.FACTS).write_text(json.dumps(FACTS | changed))
    assert refusal(folder).startswith(f"{folder / files.FACTS}: {says}")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"levels": 2},
            "tensor 'centroids' is float32 [3, 8, 10], expected float32 [2, 8, any]; make or fetch it again",
        ),
        ({"codes": 16}, "tensor 'centroids' is float32 [3, 8, 10], expected float32 [3, 16, any]"),
        ({"width": 12}, "the codebooks are for vectors of width 10, codes.json says 12"),
    ],
)
def test_codebooks_of_another_shape(
    whole: Callable[[str], Path], tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    folder = copied(whole("residual-kmeans"), tmp_path)
    (folder / files.FACTS).write_text(json.dumps(FACTS | changed))
    assert refusal(folder).startswith(f"{folder / files.CODEBOOKS}: {says}")


def header(shape: list[int], kind: str = "F32") -> bytes:
    text = json.dumps({"centroids": {"dtype": kind, "shape": shape, "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"junk", header([2**40, 2**40, 2**40]), header([10**18]), header([1], "F8_E4M3"), header([2], "BF16"),
        struct.pack("<Q", 2**60) + b"{}", b"\xff" * 100,
    ],
)  # fmt: skip
def test_bytes_that_are_no_tensors(whole: Callable[[str], Path], tmp_path: Path, data: bytes) -> None:
    folder = copied(whole("residual-kmeans"), tmp_path)
    (folder / files.CODEBOOKS).write_bytes(data)
    assert refusal(folder).startswith(f"{folder / files.CODEBOOKS}: not readable (")
    (folder / files.CODEBOOKS).unlink()
    assert refusal(folder) == f"{folder / files.CODEBOOKS}: not there; make or fetch it again"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("damage", ["lost", "other-type", "not-finite", "wider", "flat"])
def test_every_tensor_of_every_method_is_looked_at(
    whole: Callable[[str], Path], tmp_path: Path, name: str, damage: str
) -> None:
    sound = load_file(whole(name) / files.CODEBOOKS)
    for key, x in sound.items():
        if damage == "not-finite" and x.dtype == np.int64:
            continue
        folder = copied(whole(name), tmp_path)
        changed = {
            "lost": {},
            "other-type": {key: x.astype(np.int32)},
            "not-finite": {key: np.full_like(x, np.nan) if x.dtype != np.int64 else x},
            "wider": {key: np.concatenate([x, x], axis=-1)},
            "flat": {key: x.reshape(-1)[None, None, None]},
        }[damage]
        others = {other: value for other, value in sound.items() if other != key}
        save_file(others | changed, folder / files.CODEBOOKS)
        assert refusal(folder).startswith(f"{folder / files.CODEBOOKS}: ")
