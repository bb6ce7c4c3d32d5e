"""graph: feature sets -> item neighbours, <feature set>/edges.parquet."""

from pipeline import io
from pipeline.errors import UserError
from pipeline.graph.params import Graph
from pipeline.run import Run
from pipeline.stage import Stage
from schemas import EDGES
from stages.combine import FEATURES

# the control whose vectors form no groups, and whose neighbours mean nothing: an approximate index may miss them
MEANINGLESS = "random"


def main(run: Run) -> None:
    from pipeline.graph import neighbours  # loads FAISS

    if not (names := run.layout.feature_sets()):
        raise UserError(f"{run.layout.folder('encode')}: no feature sets; run `alignrec encode {run.dataset}` first")
    run.device = "cuda" if neighbours.has_gpu() else "cpu"
    for name in run.progress(names, unit="set"):
        _search(run, name)
    io.keep_only(run.folder, (run.layout.edges(name) for name in names))


def _search(run: Run, name: str) -> None:
    from pipeline.graph import approximate, neighbours
    from pipeline.ops.linalg import unit_rows

    params, edges, folder = run.params[Graph], run.layout.edges(name), run.layout.features(name)
    items = io.rows(io.shards(folder, "features"))
    if neighbours.choose(params.index, items, params.exact_up_to) == "exact":
        vectors = io.matrix(io.read_features(folder)["vector"])
        usable = unit_rows(vectors)[1]
        run.write(neighbours.neighbours(vectors, params.k), edges, EDGES)
    else:
        with io.scratch(edges.with_name(".index")) as work:
            parts = io.read_vectors(folder, approximate.BLOCK)
            try:
                found = neighbours.inverted(parts, io.width(folder), params.k, work, required=name != MEANINGLESS)
            except UserError as e:
                raise UserError(f"{folder}: {e}") from None
            run.write_all(found.tables, edges, EDGES)
        usable = found.usable
        run.note(**{name: {"index": "ivf"} | found.settled._asdict()})
    run.count(f"{name}: item without direction", items - int(usable.sum()))
    run.rows_in += items
    run.rows_out += io.rows([edges])


GRAPH = Stage(
    "graph",
    does="nearest neighbours of every feature set",
    writes="`<features>/edges.parquet`",
    reads=FEATURES,
    params=Graph,
    main=main,
)
