"""A release of the shop of tests/shops.py: 60 users, 50 items, titles that name the taste."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import shops

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode.folder import SET, Facts
from alignrec.pipeline.graph import neighbours
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.release.build import write_release
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report.outputs import Outputs

TITLES = [f"{'red' if i % 2 == 0 else 'blue'} thing {i}" for i in range(shops.ITEMS)]


def write(folder: Path, layout: Layout, features: dict[str, Path]) -> None:
    """Write a release of users and items with random embeddings and the files `features`, by the name of their set."""
    shop = replace(layout, root=folder.with_name("work"))
    shutil.copytree(layout.interactions.parent, shop.interactions.parent)
    items, users = io.read_table(shop.item_ids, schemas.ITEM_IDS), io.read_table(shop.users, schemas.USERS)
    io.write_table(_items(items), shop.items, schemas.ITEMS)
    io.write_json(shop.sources, [])
    for name, path in features.items():
        io.link(path, shop.features(name) / path.name)
        facts = Facts(encoder=name, reads=[], settings={}, batch_size=1, image_size=1, image_quality=1, portable=False)
        io.write_json(shop.features(name) / SET, facts.model_dump())
        vectors = io.matrix(io.read_features(shop.features(name))["vector"])
        io.write_table(neighbours.find_neighbours(vectors, 4), shop.edges(name), schemas.EDGES)
    rng = np.random.default_rng(0)
    for table, path, of in (
        (items, shop.item_embeddings, schemas.item_embeddings),
        (users, shop.user_embeddings, schemas.user_embeddings),
    ):
        drawn = io.vectors(rng.normal(size=(len(table), 3)))
        io.write_table(table.append_column("vector", drawn), path, of(3))
    publish = Publish(features=[*features], users="names", interactions=False)
    write_release(folder, Outputs(shop, "sample"), publish, {"stage": "publish", "params": {}, "versions": {}})


def _items(ids: pa.Table) -> pa.Table:
    n = len(ids)
    blank = [""] * n
    categories = [["things", title.split()[0]] for title in TITLES]
    columns = {"title": TITLES, "brand": blank, "categories": categories, "description": blank, "text": TITLES}
    columns |= {"text_status": ["ok"] * n, "image_urls": [[]] * n, "tokens": [3] * n, "extra": ["{}"] * n}
    columns |= {"item_id": ids["item_id"], "asin": ids["asin"]}
    return pa.table([columns[name] for name in schemas.ITEMS.names], schemas.ITEMS.names).cast(schemas.ITEMS)
