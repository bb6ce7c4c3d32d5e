"""Releases of the tiny shop, made once per process; tests change copies."""

import shutil
from pathlib import Path

import pytest
from shop import releases

from alignrec.pipeline.runtime.layout import Layout


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """All outputs, and a release whose encoder is a tiny BEiT3."""
    return releases.outputs(tmp_path_factory.mktemp("made"))


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(made.root, tmp_path / "outputs"), "shop")
