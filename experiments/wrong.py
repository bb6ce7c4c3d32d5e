"""Recommenders with wrong images, wrong texts or noise (docs/study.md): `python -m experiments.wrong sample`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEIT3_SETS, IMAGE_TOKENS, BEiT3Sets
from alignrec.pipeline.benchmark.cell import DatasetData, Hidden
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, compared, opened, planned, recalls, record

Rng = np.random.Generator


def noise(vectors: np.ndarray, rng: Rng) -> np.ndarray:
    """Return Gaussian noise with the mean and deviation of each column, float32 [I, F]."""
    return (vectors.mean(0) + vectors.std(0) * rng.standard_normal(vectors.shape)).astype(
        np.float32
    )


def changed(table: pa.Table, names: list[str], other: np.ndarray) -> pa.Table:
    """Return the table with the named columns taken from the rows `other`, int64 [I]."""
    for name in names:
        table = table.set_column(
            table.column_names.index(name), table.schema.field(name), table[name].take(other)
        )
    return table


def encoded(
    params: Parameters, layout: Layout, root: Path, features: str, what: str, other: np.ndarray
) -> np.ndarray:
    """Encode a feature set with the images or texts of other items, float32 [I, F]."""
    branch = Layout(root.resolve(), layout.dataset)
    if what == "text":
        items = io.read_table(layout.items, schemas.ITEMS)
        io.write_table(
            changed(items, ["text", "text_status", "tokens"], other), branch.items, schemas.ITEMS
        )
    else:
        shards = io.shards(layout.images, "images")
        table = pa.concat_tables(io.read_table(path, schemas.IMAGES) for path in shards)
        table = changed(
            table, [name for name in table.column_names if name not in ("item_id", "asin")], other
        )
        at = 0
        for path in shards:
            rows = io.rows([path])
            io.write_table(table.slice(at, rows), branch.images / path.name, schemas.IMAGES)
            at += rows
    if features in BEIT3_SETS:
        # size mini reads images as vectors that `encode` wrote
        read = [
            name for name in params[Encode].encoders if name in IMAGE_TOKENS and what == "image"
        ]
        sections = (
            params[Encode].model_copy(update={"encoders": read}),
            params[BEiT3Sets].model_copy(update={"sets": [features]}),
        )
        branched(
            layout,
            root,
            params.with_sections(*sections),
            ["encode", "beit3"] if read else ["beit3"],
        )
    else:
        branched(layout, root, params, ["encode", "combine"])
    return io.matrix(io.read_features(branch.features(features))["vector"])


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    model: Annotated[list[str], typer.Option()] = ["alignrec"],  # noqa: B006
    features: str = "beit3",
    ratio: Annotated[list[float], typer.Option()] = [0.1, 0.5, 1.0],  # noqa: B006
    seeds: int = 3,
) -> None:
    """Retrain with wrong content for a fraction of the items and record the change in recall."""
    own, layout, folder = opened(dataset, params, root, f"wrong/{features}")
    vectors = io.matrix(io.read_features(layout.features(features))["vector"])
    rng = np.random.default_rng(seed_for("wrong", dataset))
    cycle = rng.permutation(len(vectors))
    other = np.empty(len(vectors), np.int64)
    other[cycle] = np.roll(cycle, 1)  # a single cycle, so that no item keeps its own content
    wrong = {
        what: encoded(own, layout, folder / what, features, what, other)
        for what in ("image", "text")
    }
    wrong["noise"] = noise(vectors, rng)
    whole = DatasetData.of(own, layout, features)
    data = {"nothing": whole}
    for what, vectors_of in wrong.items():
        for share in ratio:
            path = folder / f"{what}-{share:g}.npy"
            rows = Hidden(what, share, seed_for("mask", dataset)).rows(len(vectors))
            io.write_npy(path, np.where(rows[:, None], vectors_of, vectors))
            data[f"{what} of {share:.0%}"] = DatasetData(layout, path, whole.parts, own[Graph])
    found = recalls(planned(own, data, model, seeds), folder, own[Benchmark].workers)
    record(
        layout,
        "wrong",
        compared(found, [*data], f"Wrong content of a share of the items; {features}."),
    )


if __name__ == "__main__":
    typer.run(main)
