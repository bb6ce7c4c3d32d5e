"""Publishing and verifying hold only some rows of tables in memory, and identifiers."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from processes import started
from shop import toy

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.io import tables
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.layout import Layout

SIZES, USERS, PAIRS, K, WIDTH = (1_000, 3_000), 2, 18, 10, 80
"""items; per item: users, train pairs, neighbours, width"""
PART = 256
HELD = 290
"""memory per item in bytes: identifiers of it and of two users, 8 bytes more of each during comparison, its list, and a
dictionary of the identifiers of a shard; any whole table takes more"""
SETTINGS = {
    "datasets": ["shop"],
    "sources": {"shop": {"kind": "sample"}},
    "combine": {"sets": {"minilm-cnn": {"kind": "concat", "of": ["minilm", "cnn"]}}, "controls": []},
    "publish": {"features": ["minilm-cnn"]},
}
PAGES = {"compression": "zstd", "data_page_size": 1 << 14, "dictionary_pagesize_limit": 1 << 14}
"""small pages, so that a small table has many; one per column is in memory"""


def measure(what: str, settings: Path, *roots: Path) -> None:
    """Print the peak of Arrow, NumPy and Python for each root, with tables in small parts."""
    io.PART, tables.MAX_BYTES_UNMAPPED, tables.PARQUET = PART, 1 << 17, PAGES
    pytest.MonkeyPatch().setattr(code, "fingerprint", lambda *_: "f" * 64)  # parsing our code takes seconds
    for turn, root in enumerate([roots[0], *roots]):  # the first loads modules
        tracemalloc.start() if turn else None
        if what == "publish":
            toy.run("publish", load(settings), root)
        else:
            list(verify(Layout(root, "shop").release))
        print("peak", tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
        tracemalloc.stop()


def written(root: Path, items: int) -> Layout:
    """Write the inputs of `publish`; tables that the stage would hold in memory have one row group."""
    layout, rng = toy.outputs(root), np.random.default_rng(items)
    for name in ("beit3", "random"):
        io.keep_only(layout.features(name), [])
        io.keep_only(layout.edges(name).parent, [])
    io.keep_only(layout.images, [])
    asins, people = [f"B{i:09}" for i in range(items)], [f"A{u:09}" for u in range(USERS * items)]
    table, pairs = toy.item_table([""] * items, asin=asins), np.arange(PAIRS * items)
    parts(table, layout.items, schemas.ITEMS)
    parts(table.select(["item_id", "asin"]), layout.item_ids, schemas.ITEM_IDS)
    users = toy.filled(schemas.USERS, user_id=range(USERS * items), user=people)
    parts(users, layout.users, schemas.USERS)
    bought = {"user_id": pairs % (USERS * items), "item_id": rng.integers(0, items, len(pairs))}
    bought |= {"rating": np.ones(len(pairs)), "timestamp": pairs, "split": pairs // items % 3}
    parts(toy.filled(schemas.INTERACTIONS, **bought), layout.interactions, schemas.INTERACTIONS)
    x = rng.standard_normal((USERS * items, WIDTH), dtype=np.float32)
    parts(users.append_column("vector", io.vectors(x)), layout.user_embeddings, schemas.user_embeddings(WIDTH))
    flags = [True] * items
    features = toy.feature_table(x[:items], asin=asins, has_image=flags, has_text=flags)
    of_items = features.select(["item_id", "asin", "vector"])
    parts(of_items, layout.item_embeddings, schemas.item_embeddings(WIDTH))
    toy.write_set(layout.features("minilm-cnn"), features)
    io.write_json(layout.features("minilm-cnn") / "set.json", toy.facts("minilm-cnn").model_dump())
    item, rank = np.repeat(np.arange(items), K), np.tile(np.arange(K), items)
    edges = {"item_id": item, "neighbour_id": (item + rank) % items, "rank": rank, "cosine": 1 - rank / K}
    io.write_table(pa.table(edges).cast(schemas.EDGES), layout.edges("minilm-cnn"), schemas.EDGES)
    return layout


def parts(table: pa.Table, path: Path, schema: pa.Schema) -> None:
    """Write in parts, as stages do that never hold the table."""
    io.write_tables((table.slice(at, PART) for at in range(0, len(table), PART)), path, schema, {})


@pytest.fixture(scope="module")
def catalogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogues")
    (folder / "params.yaml").write_text(json.dumps(SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "PARQUET", PAGES)
        for items in SIZES:
            written(folder / str(items), items)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("what", ["publish", "verify"])
def test_memory_grows_by_identifiers(catalogues: Path, what: str) -> None:
    """In a new process each; `verify` reads the output of `publish`."""
    roots = [catalogues / str(items) for items in SIZES]
    said, errors = started(measure, what, catalogues / "params.yaml", *roots).communicate()
    peaks = [int(line.split()[1]) for line in said.splitlines() if line.startswith("peak ")]
    assert len(peaks) == 3, errors
    _, small, large = peaks
    assert (large - small) / (SIZES[1] - SIZES[0]) < HELD
