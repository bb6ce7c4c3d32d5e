"""A release of the shop of tests/shops.py: 60 users, 50 items, titles that name the taste."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import shops

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.graph import neighbours
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.release.build import Parts, Piece, write_release
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report.outputs import Outputs

TITLES = [f"{'red' if i % 2 == 0 else 'blue'} thing {i}" for i in range(shops.ITEMS)]


def write(folder: Path, layout: Layout, features: dict[str, Path]) -> None:
    folder.mkdir(parents=True)
    work = folder.with_name("work")
    pieces, rng = [], np.random.default_rng(0)
    for name, path in features.items():
        width = io.read_features(path.parent)["vector"].type.list_size
        vectors = io.matrix(io.read_table(path, schemas.features(width))["vector"])
        edges = work / name / "edges.parquet"
        io.write_table(neighbours.find_neighbours(vectors, 4), edges, schemas.EDGES)
        pieces.append(Piece(f"features/{name}/{path.name}", path, "features"))
        pieces.append(Piece(f"graph/{name}/edges.parquet", edges, "edges"))
    items, users = io.read_table(layout.item_ids, schemas.ITEM_IDS), io.read_table(layout.users, schemas.USERS)
    for table, what, of in ((items, "items", schemas.item_embeddings), (users, "users", schemas.user_embeddings)):
        schema = of(3)
        drawn = io.vectors(rng.normal(size=(len(table), 3)))
        io.write_table(table.append_column("vector", drawn), work / f"{what}.parquet", schema)
        pieces.append(Piece(f"embeddings/{what}.parquet", work / f"{what}.parquet", f"{what[:-1]}_embeddings"))
    parts = Parts(
        outputs=Outputs(layout, "sample"),
        publish=Publish(users="names"),
        items=[_items(items)],
        features={name: [path] for name, path in features.items()},
        pieces=pieces,
    )
    write_release(folder, parts, {"stage": "publish", "params": {}, "versions": {}})


def _items(items: pa.Table) -> pa.Table:
    n, blank = len(items), [""] * len(items)
    categories = [["things", title.split()[0]] for title in TITLES]
    columns = {"title": TITLES, "brand": blank, "categories": categories, "description": blank, "text": TITLES}
    columns |= {"text_status": ["ok"] * n, "image_status": pa.nulls(n, pa.string()), "image_url": blank}
    columns |= {"image_sha256": blank, "image_phash": pa.nulls(n, pa.uint64())}
    columns |= {"input_text_sha256": blank, "input_image_sha256": blank}
    return pa.table({"item_id": items["item_id"], "asin": items["asin"], **columns})
