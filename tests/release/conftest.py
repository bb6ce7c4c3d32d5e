"""Releases of the tiny shop, made once per process; tests change copies."""

import shutil
from pathlib import Path

import pytest
import releases
import toy

from alignrec.pipeline.harness.layout import Layout


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with the features of `toy`."""
    return releases.published(toy.outputs(tmp_path_factory.mktemp("plain"))).release


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """All outputs, and a release whose encoder is a tiny BEiT3."""
    return releases.outputs(tmp_path_factory.mktemp("made"))


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(made.root, tmp_path / "outputs"), "shop")
