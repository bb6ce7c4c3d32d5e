"""edges.parquet of a feature set: by an exact search, or for a large catalogue by an inverted file."""

from pipeline import io
from pipeline.errors import UserError
from pipeline.graph import approximate, neighbours
from pipeline.graph.params import Graph
from pipeline.ops.linalg import unit_rows
from pipeline.run import Run
from schemas import EDGES

# the control whose vectors form no groups, and whose neighbours mean nothing: an approximate index may miss them
MEANINGLESS = "random"


def write_edges(run: Run, name: str) -> None:
    params, path, folder = run.params[Graph], run.layout.edges(name), run.layout.features(name)
    items = io.rows(io.shards(folder, "features"))
    if neighbours.choose(params.index, items, params.exact_up_to) == "exact":
        vectors = io.matrix(io.read_features(folder)["vector"])
        usable = unit_rows(vectors)[1]
        run.write(neighbours.neighbours(vectors, params.k), path, EDGES)
    else:
        with io.scratch(path.with_name(".index")) as work:
            parts = io.read_vectors(folder, approximate.BLOCK)
            try:
                found = neighbours.inverted(parts, io.width(folder), params.k, work, required=name != MEANINGLESS)
            except UserError as e:
                raise UserError(f"{folder}: {e}") from None
            run.write_all(found.tables, path, EDGES)
        usable = found.usable
        run.note(**{name: {"index": "ivf"} | found.settled._asdict()})
    run.count(f"{name}: item without direction", items - int(usable.sum()))
    run.rows_in += items
    run.rows_out += io.rows([path])
