"""`alignrec compare` names third-party files by folder, and counts items that differ."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "params.yaml").write_text("datasets: [s]\nsources: {s: {kind: sample, users: 300, items: 200}}\n")
    for stage in ("download", "interactions"):
        done = alignrec(stage, "s", cwd=folder)
        assert done.exit_code == 0, done.output
    return folder


def test_a_file_of_some_items_is_judged_as_if_there_were_no_others(shop: Path) -> None:
    """A comparison of some items has the figures of a dataset with only those."""
    asins = io.read_table(Layout(shop / "outputs", "s").item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    x, some = np.random.default_rng(0).standard_normal((len(asins), 6)), np.arange(0, len(asins), 2)
    for name, rows in (("whole", np.arange(len(asins))), ("part", some)):
        written = pa.table({"asin": [asins[i] for i in rows], "vector": io.vectors(x[rows])})
        pq.write_table(written, shop / f"{name}.parquet")
    done = alignrec("compare", "s", "whole.parquet", "part.parquet", "--to", "out", cwd=shop)
    assert done.exit_code == 0, done.output
    said = f"Compared on the {len(some)} of {len(asins)} items that every set has a row of."
    assert said in " ".join(done.output.split())
    found = json.loads((shop / "out/compare.json").read_text())
    assert found["items"] == {"compared": len(some), "of": len(asins)}
    asked = [of for of in found["probes"].values() if "skipped" not in of]
    assert asked
    assert all(of["whole"] == of["part"] for of in asked)
    assert found["pairs"][0]["overlap"] == 1
    assert {e["item_id"] for e in found["pairs"][0]["most_changed"]} <= {*some.tolist()}
