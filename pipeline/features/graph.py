"""The item graph of a feature set: its nearest neighbours, as parameters ask."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet, linked_catalogue
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
    """Write the neighbours of a feature set among the items of the k-core, which recommenders are
    trained on, and those among all items, if there are others.
    """
    folder = run.layout.features(name)
    directed, settings = write_graph(run, name, folder, run.layout.edges(name))
    if settings:
        run.note(**{name: settings})
    run.count(f"{name}: item without direction", int((~directed).sum()))
    run.rows_in += len(directed)
    run.rows_out += io.rows([run.layout.edges(name)])

    if FeatureSet(name, folder).further() is not None:
        path = run.layout.catalogue_edges(name)
        with linked_catalogue(FeatureSet(name, folder), path.with_name(".all")) as catalogue:
            write_graph(run, name, catalogue, path)


def write_graph(run: Run, name: str, folder: Path, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Write the edges of the feature set in a folder; return its items with a direction, bool [I],
    and the settings of an approximate index.
    """
    params = run.params[Graph]
    items = io.rows(io.shards(folder, "features"))
    if choose_index(params.index, items, params.exact_up_to) == "exact":
        vectors = io.matrix(io.read_features(folder)["vector"])
        _, directed = unit_rows(vectors)
        run.write(find_neighbours(vectors, params.k), path, EDGES)
        return directed, {}

    directed, settings = write_approximate(run, name, folder, path, params.k)
    return directed, {"index": "ivf"} | settings


def write_approximate(
    run: Run, name: str, folder: Path, path: Path, k: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Write edges found by an inverted file; return the items with a direction and its settings."""
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
