"""Fixtures: a release of the shop of tests/tastes.py, with 60 users, 50 items and two tastes."""

from pathlib import Path

import pyarrow as pa
import pytest
from shop import tastes

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Outputs of the shop, with feature set f."""
    return tastes.outputs(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="session")
def made(layout: Layout) -> Path:
    """The release, whose features are named beit3."""
    folder = layout.root / "release"
    tastes.write_release(folder, layout, {"beit3": layout.features("f") / "features-00000.parquet"})
    return folder


@pytest.fixture(scope="session")
def interactions(layout: Layout) -> pa.Table:
    """user u0 .., item i0 .., timestamp, split: who has what."""
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    user, item, split = (table[c].to_pylist() for c in ("user_id", "item_id", "split"))
    names = {"user": [f"u{u}" for u in user], "item": [f"i{i}" for i in item]}
    return pa.table(names | {"timestamp": range(len(table)), "split": pa.array(split, pa.int8())})
