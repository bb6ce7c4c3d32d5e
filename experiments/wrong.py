"""Recommenders with wrong images, wrong texts or noise (docs/study.md).

Command: `python -m experiments.wrong sample`.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEIT3_SETS, IMAGE_TOKENS, BEiT3Sets
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.benchmark.cell import DatasetData, Hidden
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, compared, opened, planned, read_vectors, recalls, record

Rng = np.random.Generator


def noise(vectors: np.ndarray, rng: Rng) -> np.ndarray:
    """Return Gaussian noise with the mean and deviation of each column, float32 [I, F]."""
    return (vectors.mean(0) + vectors.std(0) * rng.standard_normal(vectors.shape)).astype(
        np.float32
    )


def replace_columns(table: pa.Table, names: list[str], rows: np.ndarray) -> pa.Table:
    """Return the table with the named columns taken from `rows`, int64 [I]."""
    for name in names:
        position = table.column_names.index(name)
        table = table.set_column(position, table.schema.field(name), table[name].take(rows))
    return table


def encode_wrongly(
    params: Parameters, layout: Layout, root: Path, features: str, what: str, rows: np.ndarray
) -> np.ndarray:
    """Encode a feature set with the images or texts of the items in `rows`, float32 [I, F]."""
    branch = Layout(root.resolve(), layout.dataset)
    if what == "text":
        write_wrong_texts(layout, branch, rows)
    else:
        write_wrong_images(layout, branch, rows)

    if features in BEIT3_SETS:
        # size mini reads images as vectors that `encode` wrote
        readers = [name for name in params[Encode].encoders if name in IMAGE_TOKENS]
        encoders = readers if what == "image" else []
        sections = (
            params[Encode].model_copy(update={"encoders": encoders}),
            params[BEiT3Sets].model_copy(update={"sets": [features]}),
        )
        stages = ["encode", "beit3"] if encoders else ["beit3"]
        branched(layout, root, params.with_sections(*sections), stages)
    else:
        branched(layout, root, params, ["encode", "combine"])
    return read_vectors(branch, features)


def write_wrong_texts(layout: Layout, branch: Layout, rows: np.ndarray) -> None:
    items = io.read_table(layout.items, schemas.ITEMS)
    wrong = replace_columns(items, ["text", "text_status", "tokens"], rows)
    io.write_table(wrong, branch.items, schemas.ITEMS)


def write_wrong_images(layout: Layout, branch: Layout, rows: np.ndarray) -> None:
    shards = io.shards(layout.images, "images")
    table = pa.concat_tables(io.read_table(path, schemas.IMAGES) for path in shards)
    columns = [name for name in table.column_names if name not in ("item_id", "asin")]
    wrong = replace_columns(table, columns, rows)
    start = 0
    for path in shards:
        length = io.rows([path])
        shard = wrong.slice(start, length)
        io.write_table(shard, branch.images / path.name, schemas.IMAGES)
        start += length


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
    parameters, layout, folder = opened(dataset, params, root, f"wrong/{features}")
    vectors = read_vectors(layout, features)
    rng = np.random.default_rng(seed_for("wrong", dataset))
    rows = draw_cycle(len(vectors), rng)
    wrong = {}
    for what in ("image", "text"):
        wrong[what] = encode_wrongly(parameters, layout, folder / what, features, what, rows)
    wrong["noise"] = noise(vectors, rng)

    right = DatasetData.of(parameters, layout, features)
    data = {"nothing": right}
    for what, wrong_vectors in wrong.items():
        for share in ratio:
            hidden = Hidden(what, share, seed_for("mask", dataset)).rows(len(vectors))
            path = folder / f"{what}-{share:g}.npy"
            io.write_npy(path, np.where(hidden[:, None], wrong_vectors, vectors))
            mixed = DatasetData(layout, path, right.parts, parameters[Graph])
            data[f"{what} of {share:.0%}"] = mixed

    cells = planned(parameters, data, model, seeds)
    values = recalls(cells, folder, parameters[Benchmark].workers)
    note = f"Wrong content of a share of the items; {features}."
    record(layout, "wrong", compared(values, [*data], note))


def draw_cycle(n: int, rng: Rng) -> np.ndarray:
    """Return another item for each, int64 [I]: a single cycle, so that no item keeps its own
    content.
    """
    cycle = rng.permutation(n)
    rows = np.empty(n, np.int64)
    rows[cycle] = np.roll(cycle, 1)
    return rows


if __name__ == "__main__":
    typer.run(main)
