"""Imitated outputs of the stages on a tiny shop: 6 items, 4 users, 2-d features."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pyarrow as pa
import pytest
import shims
from filelock import FileLock

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, list_runs, rankings_path
from alignrec.pipeline.features.folder import SET, Facts
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models.training import retrieval
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.record import present_files, record_digest
from alignrec.pipeline.runtime.run import Run, running
from alignrec.stages.order import STAGES

ITEMS, USERS, WIDTH = 6, 4, 2
TITLES = ["red apple", "red ball", '<script>alert("1")</script> & "x"', "blue car", "", "green tree"]
COLOURS = [(220, 40, 40), (200, 60, 60), (240, 200, 0), (40, 60, 220), None, (20, 160, 60)]
SETS = {"beit3": 1, "minilm-cnn": 2, "random": 3}
ASINS, NAMES = [f"A{i}" for i in range(ITEMS)], [f"U{u}" for u in range(USERS)]
ITEM_ID, USER_ID = pa.array(range(ITEMS), pa.int32()), pa.array(range(USERS), pa.int32())


def params(**sections: object) -> Params:
    return Params.model_validate({"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}, **sections})


PARAMS = params()


def run(stage: str, params: Parameters, root: Path, dataset: str = "shop", item: str = "") -> Run:
    """Run a stage; return its run."""
    with running(stage, dataset, params, root, item) as run:
        STAGES[stage].main(run)
    return run


def record(stage: str) -> dict[str, object]:
    params = {} if stage in ("graph", "benchmark") else {"seed": 0}
    return {"stage": stage, "dataset": "shop", "params": params, "versions": {"python": "3"}}


def outputs(root: Path) -> Layout:
    """Write the outputs of all stages up to benchmark."""
    shutil.copytree(made(_outputs), root, dirs_exist_ok=True)
    return Layout(root, "shop")


@cache
def made(make: Callable[..., object], *arguments: object) -> Path:
    """Return a folder that `make` wrote, once for all workers, as it takes seconds; tests change copies."""
    path = shims.folder() / "-".join(map(str, (make.__module__, make.__name__, *arguments)))
    unfinished = Path(f"{path}.part")
    with FileLock(f"{path}.lock"):
        if not path.exists():
            shutil.rmtree(unfinished, ignore_errors=True)  # of a test that failed
            make(unfinished, *arguments)
            unfinished.rename(path)
    return path


def _outputs(root: Path) -> None:
    layout = Layout(root, "shop")
    source = {"role": "reviews", "name": "reviews.json.gz", "url": "file:reviews", "bytes": 9, "sha256": "a" * 64}
    io.write_json(layout.sources, [source])
    rows = [(u, (u + i) % ITEMS, 5.0, 10 * u + i, [0, 0, 1, 2][i]) for u in range(USERS) for i in range(4)]
    bought = pa.Table.from_arrays([*map(pa.array, zip(*rows, strict=True))], schemas.INTERACTIONS.names)
    io.write_table(bought.cast(schemas.INTERACTIONS), layout.interactions, schemas.INTERACTIONS, record("interactions"))
    io.write_table(pa.table({"user_id": USER_ID, "user": NAMES}), layout.users, schemas.USERS)
    write_catalogue(layout, items(), images())
    for name, seed in SETS.items():
        write_features(layout, name, np.random.default_rng(seed).normal(size=(ITEMS, WIDTH)))
    write_recommender(layout)
    hits = {"hit@5": 0.1, "hit@20": 0.4, "hit@5_se": 0.01, "hit@20_se": 0.02}
    zero_shot = {"users": 4, "chance": hits} | dict.fromkeys(SETS, hits)
    io.write_json(layout.probes, {"zero_shot": zero_shot, "item_cf": {"skipped": "no reason"}})
    write_benchmark(layout)
    write_study(layout)
    for stage in [*STAGES][1:-2]:
        write_record(layout, run_record(stage))


def filled(schema: pa.Schema, **columns: Any) -> pa.Table:
    """Return a table of the schema, in which the columns that are not given are blank."""
    rows, arrays = len(next(iter(columns.values()))), []
    for field in schema:
        blank = None if field.nullable else {pa.string(): "", pa.int32(): 0}.get(field.type, [])
        values = columns.get(field.name, [blank] * rows)
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.table(arrays, schema.names)


def names(n: int) -> dict[str, Any]:
    return {"item_id": range(n), "asin": [f"A{i}" for i in range(n)]}


def item_table(texts: Sequence[str], **columns: Any) -> pa.Table:
    own = names(len(texts)) | {"title": texts, "text": texts, "tokens": [len(text.split()) for text in texts]}
    own |= {"text_status": ["ok" if text else "empty" for text in texts], "extra": ["{}"] * len(texts)}
    return filled(schemas.ITEMS, **own | columns)


def image_table(jpegs: Sequence[bytes | None], **columns: Any) -> pa.Table:
    ok = [one is not None for one in jpegs]
    own = names(len(jpegs)) | {"status": ["ok" if there else "missing" for there in ok], "image": jpegs}
    own |= {side: [32 * there for there in ok] for side in ("width", "height")}
    return filled(schemas.IMAGES, **own | columns)


def feature_table(vectors: np.ndarray, **columns: Any) -> pa.Table:
    own = names(len(vectors)) | {"vector": io.vectors(vectors)}
    return filled(schemas.features(vectors.shape[1]), **own | columns)


def write_set(folder: Path, features: pa.Table, rows: int = 1 << 20, record: dict[str, Any] | None = None) -> None:
    """Write a feature set in files of so many rows."""
    schema = schemas.features(features.schema.field("vector").type.list_size)
    for number, start in enumerate(range(0, len(features), rows)):
        io.write_table(features.slice(start, rows), io.shard(folder, "features", number), schema, record)


def write_items(layout: Layout, items: pa.Table) -> None:
    io.write_table(items, layout.items, schemas.ITEMS, record("items"))
    io.write_table(items.select(schemas.ITEM_IDS.names), layout.item_ids, schemas.ITEM_IDS)


def write_catalogue(layout: Layout, items: pa.Table, images: pa.Table, images_per_file: int = 1 << 20) -> None:
    """Write items, their identifiers, and their images in files of so many."""
    write_items(layout, items)
    for number, start in enumerate(range(0, len(images), images_per_file)):
        path = io.shard(layout.images, "images", number)
        io.write_table(images.slice(start, images_per_file), path, schemas.IMAGES, record("images"))


def items() -> pa.Table:
    addresses = [[f"https://pictures.example/{asin}.jpg"] for asin in ASINS]
    categories = [["toys"], ["toys"], ["<b>odd</b>"], ["cars"], [], ["plants"]]
    return item_table(TITLES, categories=categories, image_urls=addresses)


def images() -> pa.Table:
    url = ["file:///somewhere/on/this/machine.png", *(f"https://p/{i}.jpg" for i in range(1, ITEMS))]
    reason = ["" if c else "the metadata names no image" for c in COLOURS]
    sha256 = ["b" * 64 if c else "" for c in COLOURS]
    return image_table([c and jpeg(c) for c in COLOURS], reason=reason, url=url, sha256=sha256)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    return pictures.plain(colour, (32, 32))


def write_features(layout: Layout, name: str, vectors: np.ndarray) -> None:
    """Write a feature set of the shop, and its graph."""
    known = {"has_image": [c is not None for c in COLOURS], "has_text": [bool(t) for t in TITLES]}
    write_graph_and_set(layout, name, feature_table(vectors, **known))
    io.write_json(layout.features(name) / SET, facts(name).model_dump())


def write_graph_and_set(layout: Layout, name: str, features: pa.Table, k: int = 4) -> None:
    write_set(layout.features(name), features, record=record("encode"))
    edges = neighbours.find_neighbours(io.matrix(features["vector"]), k)
    io.write_table(edges, layout.edges(name), schemas.EDGES, record("graph"))


def facts(name: str) -> Facts:
    """Return the set.json of a set that cannot encode new items."""
    images = {"batch_size": 64, "image_size": 256, "image_quality": 90, "packages": {}}
    own: dict[str, Any] = {"encoder": name, "kind": name, "reads": ["image", "text"], "parts": [], "portable": False}
    return Facts.model_validate(own | images | {"settings": {"whiten": True}})


def write_embeddings(layout: Layout) -> None:
    """Write random embeddings of the users and items."""
    rng = np.random.default_rng(0)
    users, items = io.read_table(layout.users, schemas.USERS), io.read_table(layout.item_ids, schemas.ITEM_IDS)
    for table, path, schema in (
        (users, layout.user_embeddings, schemas.user_embeddings(3)),
        (items, layout.item_embeddings, schemas.item_embeddings(3)),
    ):
        drawn = io.vectors(rng.normal(size=(len(table), 3)))
        io.write_table(table.append_column("vector", drawn), path, schema, record("train"))


def write_recommender(layout: Layout) -> None:
    write_embeddings(layout)
    retrieval.write_index(layout, ITEMS)
    for stage in ("pretrain", "train"):
        history = [{"epoch": e, "loss": 2.0 - 0.1 * e, "valid_recall@20": 0.01 * e} for e in range(12)]
        io.write_json(layout.history(stage), history)


RUNS = {("alignrec", "beit3", ""): 0.3, ("lightgcn", "none", ""): 0.2, ("alignrec", "beit3", "no-cca"): 0.25}
"""model, features, ablation -> test Recall@20 and NDCG@20 of the first seed; each later seed adds .01"""
JUDGED = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "f" * 16}


def write_benchmark(layout: Layout) -> None:
    results, slices = [], []
    for (model, features, ablation), base in RUNS.items():
        for seed in range(3):
            named = JUDGED | {"model": model, "features": features, "ablation": ablation, "seed": seed}
            value = base + 0.01 * seed
            test = named | {"split": "test", "selected_by": "valid", "value": value}
            results += [test | {"metric": metric, "k": k} for metric in ("recall", "ndcg") for k in (10, 20)]
            slices += [named | {"k": 20} | row for row in _slices(value)]
    paired = JUDGED | {"k": 20, "seeds": 3, "n": 4, "mean_a": 0.31, "p": 0.001}
    paired |= {"model_a": "alignrec", "features_a": "beit3", "ablation_a": ""}
    beaten = {"model_b": "lightgcn", "features_b": "none", "ablation_b": "", "mean_b": 0.21, "difference": 0.1}
    level = {"model_b": "alignrec", "features_b": "beit3", "ablation_b": "no-cca", "mean_b": 0.26, "difference": 0.05}
    found = [beaten | {"low": 0.05, "high": 0.15, "p_holm": 0.004}, level | {"low": -0.02, "high": 0.12, "p_holm": 0.2}]
    tests = [paired | other | {"metric": m} for m in ("ndcg", "recall") for other in found]
    for rows, path, schema in (
        (results, layout.results, schemas.RESULTS),
        (slices, layout.slices, schemas.SLICES),
        (tests, layout.tests, schemas.TESTS),
    ):
        io.write_table(pa.Table.from_pylist(rows, schema), path, schema, record("benchmark"))
    best = pa.FixedSizeListArray.from_arrays(
        pa.array([5, 4, 3, -1] * USERS, pa.int32()), type=schemas.rankings(4).field("items").type
    )
    keys = {CellLabel(model, features, 0, ablation): f"{n:064}" for n, (model, features, ablation) in enumerate(RUNS)}
    io.write_json(layout.runs, list_runs(keys))
    for entry in keys:
        rankings = pa.table({"user_id": USER_ID, "items": best})
        io.write_table(rankings, rankings_path(layout, entry), schemas.rankings(4))
    io.write_json(layout.protocol, [{"name": "mmrec", "fingerprint": "f" * 16, "rule": "mmrec"}])


def _slices(value: float) -> list[dict[str, Any]]:
    rows = []
    for part in ("cold", *map(str, range(1, 11))):
        n = 0 if part == "cold" else 7 + int(part)
        cut = {"n": n, "slice": "popularity", "label": part}
        rows.append(cut | {"metric": "recall", "value": value / 2 if n else None})
    for label, n in (("3", 0), ("4-5", 3), ("6-9", 1)):
        cut = {"n": n, "slice": "history", "label": label, "metric": "recall"}
        rows.append(cut | {"value": value if n else None})
    return rows


MASKED = {("nothing", 0.0): (0.18, 0.2), ("image", 0.5): (0.162, 0.17), ("text", 0.5): (0.09, 0.1),
          ("image", 1.0): (0.15, 0.16), ("text", 1.0): (0.05, 0.06)}  # fmt: skip
"""modality, ratio -> Recall@20 by seed"""


def write_study(layout: Layout) -> None:
    judged = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "e" * 16, "features": "beit3"}
    mask = [
        judged | {"modality": modality, "ratio": ratio, "seed": seed, "recall@20": value, "best_epoch": 3}
        for (modality, ratio), values in MASKED.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    for part, rows in {"mask": mask, "tail": [], "sweeps": []}.items():
        schema = schemas.STUDY[part]
        io.write_table(pa.Table.from_pylist(rows, schema), layout.study(part), schema, record("study"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return path -> content of all files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def stopped(at: int) -> Iterator[list[Path]]:
    """Note files as they are replaced, and raise KeyboardInterrupt at one of them, after which nothing is written."""
    made, replace = list[Path](), Path.replace

    def noting(path: Path, target: Path) -> Path:
        made.append(target)
        if len(made) >= at:
            raise KeyboardInterrupt
        return replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", noting)
        yield made


def ended(layout: Layout) -> None:
    """Write the records of all stages with files, as if each had just ended."""
    for name, stage in STAGES.items():
        for item in [path.name for path in layout.folder(name).glob("*/")] if stage.per else [""]:
            if files := present_files(layout.folder(name, item)):
                record = run_record(name) | {"dataset": layout.dataset, "files": files}
                write_record(layout, record, item)


def write_record(layout: Layout, record: dict[str, Any], item: str = "") -> None:
    io.write_json(layout.run_record(record["stage"], item), record | {"sha256": record_digest(record)})


def run_record(stage: str) -> dict[str, Any]:
    drops, params = {"interactions": {"duplicate": 2}}, {"pretrain": {"size": "small"}}
    record = {"stage": stage, "dataset": "shop", "rows_in": 10, "rows_out": 6, "drops": drops.get(stage, {})}
    record |= {"device": "cpu", "machine": "Linux x86_64", "seed": 0, "params": params.get(stage, {})}
    return record | {"versions": {}, "notes": {"users": 4}, "files": {}}
