"""Untrusted codes.json and codebooks.safetensors: what does not fit is one line that names the file."""

from __future__ import annotations

import json
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
    ("changed", "file", "fault"),
    [
        ({"method": "residual-kmean"}, files.FACTS, "'method': no 'residual-kmean'; did you mean 'residual-kmeans'?"),
        ({"colours": 3}, files.FACTS, "unknown key 'colours'"),
        ({"levels": 2}, files.CODEBOOKS, "tensor 'centroids' is float32 [3, 8, 10], expected float32 [2, 8, any]"),
        ({"codes": 16}, files.CODEBOOKS, "tensor 'centroids' is float32 [3, 8, 10], expected float32 [3, 16, any]"),
        ({"width": 12}, files.CODEBOOKS, "the codebooks are for vectors of width 10, codes.json says 12"),
    ],
)
def test_facts_that_are_invalid_or_of_other_codebooks(
    whole: Callable[[str], Path], tmp_path: Path, changed: dict[str, Any], file: str, fault: str
) -> None:
    folder = copied(whole("residual-kmeans"), tmp_path)
    (folder / files.FACTS).write_text(json.dumps(FACTS | changed))
    assert refusal(folder).startswith(f"{folder / file}: {fault}")


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
