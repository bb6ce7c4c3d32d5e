"""The item graph of a feature set: its nearest neighbours, as parameters ask."""

from typing import Any

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.linalg.neighbours import (
    SEARCH_BLOCK_ROWS,
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
    """Return EDGES of features, float32 [I, F]."""
    index = choose_index(params.index, len(features), params.exact_up_to)
    return find_neighbours(features, params.k, index)


def write_edges(run: Run, name: str) -> None:
    params = run.params[Graph]
    path = run.layout.edges(name)
    folder = run.layout.features(name)
    items = io.rows(io.shards(folder, "features"))

    if choose_index(params.index, items, params.exact_up_to) == "exact":
        vectors = io.matrix(io.read_features(folder)["vector"])
        _, directed = unit_rows(vectors)
        run.write(find_neighbours(vectors, params.k), path, EDGES)
    else:
        directed, settings = write_approximate(run, name, params.k)
        run.note(**{name: {"index": "ivf"} | settings})

    run.count(f"{name}: item without direction", items - int(directed.sum()))
    run.rows_in += items
    run.rows_out += io.rows([path])


def write_approximate(run: Run, name: str, k: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Write edges found by an inverted file; return the items with a direction and its settings."""
    path = run.layout.edges(name)
    folder = run.layout.features(name)
    is_required = name != MEANINGLESS
    with io.scratch(path.with_name(".index")) as work:
        blocks = io.read_vectors(folder, SEARCH_BLOCK_ROWS)
        try:
            tables, directed, settings = search_inverted(
                blocks, io.width(folder), k, work, required=is_required
            )
        except (UserError, RuntimeError) as e:  # FAISS raises RuntimeError where the disk is full
            raise UserError(f"{folder}: {one_line(e)}") from None
        run.write_all(tables, path, EDGES)
    return directed, settings._asdict()
