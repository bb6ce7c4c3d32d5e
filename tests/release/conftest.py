"""Releases of the tiny shop, made once per process; tests change copies."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import serving_s3, stored
from shop import releases

from alignrec.pipeline.runtime.layout import Layout


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """All outputs, and a release whose encoder is a tiny BEiT3."""
    return releases.outputs(tmp_path_factory.mktemp("made"))


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(made.root, tmp_path / "outputs"), "shop")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """Set the environment for the server; return a client other than the product's."""
    with serving_s3() as client:
        yield client


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"bucket{abs(hash(request.node.name))}"
    s3.create_bucket(Bucket=name)
    yield name
    for key in stored(s3, name):
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=name)
