"""Releases of the tiny shop, each made once per process; what a test changes is a copy."""

import shutil
from pathlib import Path

import pytest
import releases
import toy

from alignrec.pipeline.harness.layout import Layout


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of features that `toy` drew."""
    return releases.published(toy.outputs(tmp_path_factory.mktemp("plain"))).release


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """All outputs, with a release whose encoder is a tiny BEiT3."""
    return releases.outputs(tmp_path_factory.mktemp("made"))


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(made.root, tmp_path / "outputs"), "shop")
