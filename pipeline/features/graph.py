"""The item graph of a feature set: its nearest neighbours, as parameters ask. I items, F feature width."""

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.linalg.neighbours import (
    BLOCK,
    choose_index,
    find_neighbours,
    search_inverted,
)
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime.run import Run
from alignrec.schemas import EDGES

# control without clusters and meaningful neighbours, exempt from the required recall
MEANINGLESS = "random"


def neighbours_by_params(features: np.ndarray, params: Graph) -> pa.Table:
    return find_neighbours(
        features, params.k, choose_index(params.index, len(features), params.exact_up_to)
    )


def write_edges(run: Run, name: str) -> None:
    params, path, folder = run.params[Graph], run.layout.edges(name), run.layout.features(name)
    items = io.rows(io.shards(folder, "features"))
    if choose_index(params.index, items, params.exact_up_to) == "exact":
        vectors = io.matrix(io.read_features(folder)["vector"])
        usable = unit_rows(vectors)[1]
        run.write(find_neighbours(vectors, params.k), path, EDGES)
    else:
        with io.scratch(path.with_name(".index")) as work:
            parts = io.read_vectors(folder, BLOCK)
            try:
                tables, usable, settled = search_inverted(
                    parts, io.width(folder), params.k, work, required=name != MEANINGLESS
                )
            except (
                UserError,
                RuntimeError,
            ) as e:  # FAISS raises RuntimeError where the disk is full
                raise UserError(f"{folder}: {one_line(e)}") from None
            run.write_all(tables, path, EDGES)
        run.note(**{name: {"index": "ivf"} | settled._asdict()})
    run.count(f"{name}: item without direction", items - int(usable.sum()))
    run.rows_in += items
    run.rows_out += io.rows([path])
