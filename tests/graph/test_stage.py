"""The stage graph with an inverted file: the library's edges, in parts; errors name the set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.graph import approximate, neighbours
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.stages import graph

ITEMS, WIDTH = 1000, 32


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PART": 300, "BLOCK": 200, "SAMPLE": 900, "FEW": 4}.items():
        monkeypatch.setattr(approximate, name, value)


def write(root: Path, name: str, vectors: np.ndarray) -> None:
    ids = np.arange(len(vectors), dtype=np.int32)
    flags = np.ones(len(vectors), bool)
    for number, at in enumerate(range(0, len(vectors), 400)):
        part = slice(at, at + 400)
        table = {"item_id": ids[part], "asin": [str(i) for i in ids[part]], "vector": io.vectors(vectors[part])}
        rows = pa.table(table | {"has_image": flags[part], "has_text": flags[part]})
        path = io.shard(Layout(root, "shop").features(name), "features", number)
        io.write_table(rows, path, schemas.features(WIDTH))


def run(root: Path, **given: Any) -> None:
    with running("graph", "shop", toy.params(graph={"k": 6, **given}), root) as run:
        graph.main(run)


def grouped() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, WIDTH))
    return (centres[np.arange(ITEMS) % 20] + 0.3 * rng.normal(size=(ITEMS, WIDTH))).astype(np.float32)


def isotropic() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ITEMS, WIDTH)).astype(np.float32)


def test_a_large_set_is_searched_on_disk_and_a_random_control_may_miss(tmp_path: Path) -> None:
    features = grouped()
    features[[5, 700]] = 0
    write(tmp_path, "f", features)
    write(tmp_path, "random", isotropic())
    run(tmp_path, exact_up_to=999)
    layout, record = Layout(tmp_path, "shop"), io.read_json(Layout(tmp_path, "shop").run_record("graph"))
    edges = io.read_table(layout.edges("f"), schemas.EDGES)
    assert edges.equals(schemas.check(neighbours.find_neighbours(features, 6, "ivf"), schemas.EDGES))
    assert (record["rows_in"], record["rows_out"]) == (2 * ITEMS, 2 * 6 * ITEMS - 10)
    assert record["drops"] == {"f: item without direction": 2}
    assert record["notes"]["f"]["index"] == "ivf"
    assert record["notes"]["f"]["recall"] >= 0.95 > record["notes"]["random"]["recall"]
    assert {path.name for path in layout.edges("f").parent.iterdir()} == {"edges.parquet"}
