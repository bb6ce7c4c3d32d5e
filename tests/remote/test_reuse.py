"""Rows that are taken over from a bucket: by a whole stage all, by a part those of its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.layout import Layout
from pipeline.remote.bucket import folders
from stages.cli import app
from tests.features.test_earlier import CHANGES, ITEMS, N, catalogue, noted, params, stage, vectors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return networks.siglip(tmp_path / "network")


def encode(
    bucket: str, machine: Path, model: Path, reuse: bool, *more: str, patch: pytest.MonkeyPatch
) -> tuple[Layout, str]:
    """Run the stage on a machine; return its folder there, and what it said."""
    patch.setenv("XDG_CACHE_HOME", str(machine))
    (machine.parent / "p.yaml").write_text(params(model, reuse).model_dump_json(exclude_unset=True))
    command = ["encode", "shop", "--params", str(machine.parent / "p.yaml"), "--root", bucket, *more]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    return Layout(folders(bucket) / "0", "shop"), done.output


def test_rows_come_from_a_bucket_and_a_part_takes_those_of_its_own_files(
    s3: Any, target: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = CHANGES["two-at-the-front"][0]
    fresh = catalogue(tmp_path / "fresh", items)
    stage(fresh, params(model, reuse=False))
    s3.put(f"{catalogue(tmp_path / 'local', ITEMS).root}/", f"{target}/", recursive=True)
    encode(target, tmp_path / "first", model, reuse=False, patch=monkeypatch)
    s3.copy(target, f"{target}-parts", recursive=True)
    new = catalogue(tmp_path / "changed", items).root
    for bucket in (target, f"{target}-parts"):
        s3.put(f"{new}/", f"{bucket}/", recursive=True)

    whole, _ = encode(target, tmp_path / "whole", model, reuse=True, patch=monkeypatch)
    assert noted(whole) == (N, 2)
    np.testing.assert_allclose(vectors(whole), vectors(fresh), atol=1e-5)

    for part in ("1/2", "2/2"):
        _, said = encode(f"{target}-parts", tmp_path / part[0], model, True, "--part", part, patch=monkeypatch)
        assert "net: 4 rows taken over, 4 encoded" in said
    parts, _ = encode(f"{target}-parts", tmp_path / "end", model, reuse=True, patch=monkeypatch)
    assert [path for path in s3.find(f"{target}-parts") if "earlier" in path] == []
    np.testing.assert_allclose(vectors(parts), vectors(fresh), atol=1e-5)
