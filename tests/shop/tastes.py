"""Toy data for recommenders: two tastes without overlap; and a release of it, with titles that name the taste."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from shop import featured, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split
from alignrec.pipeline.features.folder import SET, Facts
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.release import build
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters

USERS, ITEMS, WIDTH = 60, 50, 8


def interactions(rows: list[tuple[int, int, int]]) -> pa.Table:
    users, items, parts = zip(*rows, strict=True) if rows else ((), (), ())
    none = [None] * len(rows)
    return pa.table([users, items, none, none, parts], schemas.INTERACTIONS.names).cast(schemas.INTERACTIONS)


def two_tastes() -> split.Split:
    """Even users have even items, odd users odd ones: eight in train, one in valid, one in test."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        bought = rng.permutation(np.arange(user % 2, ITEMS, 2))[:10]
        rows += [(user, int(item), part) for item, part in zip(bought, [0] * 8 + [1, 2], strict=True)]
    return split.load_split(interactions(rows), USERS, ITEMS)


def content(seed: int = 0, items: int = ITEMS) -> np.ndarray:
    """Return float32 [items, WIDTH]: two noisy directions, for even and odd items."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(2, WIDTH))[np.arange(items) % 2]
    return (directions + 0.3 * rng.normal(size=(items, WIDTH))).astype(np.float32)


def outputs(root: Path) -> Layout:
    layout, parts = Layout(root, "shop"), two_tastes()
    numbered = [(pairs, n) for n, pairs in enumerate((parts.train, parts.valid, parts.test))]
    rows = [(int(u), int(i), n) for pairs, n in numbered for u, i in zip(pairs.users, pairs.items, strict=True)]
    write_catalogue(layout, rows, USERS, ITEMS)
    write_set(layout, "f", content())
    return layout


def write_catalogue(
    layout: Layout, rows: list[tuple[int, int, int]], users: int, items: int, record: dict[str, Any] | None = None
) -> None:
    """Write interactions, users u0 .. and items i0 .."""
    io.write_table(interactions(rows), layout.interactions, schemas.INTERACTIONS, record)
    named = toy.filled(schemas.USERS, user_id=range(users), user=[f"u{i}" for i in range(users)])
    io.write_table(named, layout.users, schemas.USERS)
    named = toy.filled(schemas.ITEM_IDS, item_id=range(items), asin=[f"i{i}" for i in range(items)])
    io.write_table(named, layout.item_ids, schemas.ITEM_IDS)


def benchmark(root: Path, params: Parameters) -> dict[str, bytes]:
    """Run the stage benchmark; return path -> content of its files, except its cost."""

    toy.run("benchmark", params, root)
    made = toy.contents(root / "benchmark/shop")
    return {path: data for path, data in made.items() if not path.endswith("cost.json")}


def write_set(layout: Layout, name: str, vectors: np.ndarray, k: int = 4) -> None:
    """Write a feature set and its graph."""
    asin = [f"i{i}" for i in range(len(vectors))]
    toy.write_graph_and_set(layout, name, toy.feature_table(vectors, asin=asin), k)


TITLES = [f"{'red' if i % 2 == 0 else 'blue'} thing {i}" for i in range(ITEMS)]


def write_release(folder: Path, layout: Layout, features: dict[str, Path], **publish: Any) -> None:
    """Write a release of users and items, and of the files `features`, by the name of their set.

    Embeddings are those of the stage train, or random ones if it has not run.
    """
    shop = replace(layout, root=folder.with_name("work"))
    shutil.copytree(layout.interactions.parent, shop.interactions.parent)
    asin = io.read_table(shop.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    categories = [["things", title.split()[0]] for title in TITLES]
    toy.write_items(shop, toy.item_table(TITLES, asin=asin, categories=categories))
    io.write_json(shop.sources, [])
    for name, path in features.items():
        io.link(path, shop.features(name) / path.name)
        facts = Facts(encoder=name, reads=[], settings={}, batch_size=1, image_size=1, image_quality=1, portable=False)
        io.write_json(shop.features(name) / SET, facts.model_dump())
        vectors = featured.vectors(shop, name)
        io.write_table(neighbours.find_neighbours(vectors, 4), shop.edges(name), schemas.EDGES)
    toy.write_embeddings(shop)
    for trained, path in (
        (layout.user_embeddings, shop.user_embeddings),
        (layout.item_embeddings, shop.item_embeddings),
    ):
        if trained.is_file():
            shutil.copy(trained, path)
    settings = Publish(features=[*features], **{"users": "names", "interactions": False} | publish)
    record = {"stage": "publish", "params": {}, "versions": {}}
    build.write_release(folder, Outputs(shop, "sample"), settings, record, print)
