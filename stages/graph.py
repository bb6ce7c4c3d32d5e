"""graph: feature sets -> item neighbours, <feature set>/edges.parquet."""

from __future__ import annotations

from pipeline import io
from pipeline.errors import UserError
from pipeline.graph.params import Graph
from pipeline.run import Run
from pipeline.stage import Stage
from schemas import EDGES
from stages.encode import ENCODE

SAMPLE = 1000
"""items on which an approximate index's recall is measured"""


def main(run: Run) -> None:
    """Search every feature set that encode wrote."""
    from pipeline.graph import gpu, neighbours  # load FAISS
    from pipeline.ops.rows import unit_rows

    params = run.params[Graph]
    names = run.layout.feature_sets()
    if not names:
        raise UserError(
            f"{run.layout.folder('encode')}: no feature sets there; run `alignrec encode {run.dataset}` first"
        )
    run.device = "cuda" if gpu.count() else "cpu"
    for name in run.progress(names, unit="set"):
        vectors = io.matrix(io.read_features(run.layout.features(name))["vector"])
        index = neighbours.choose(params.index, len(vectors), params.exact_up_to)
        edges = neighbours.neighbours(vectors, params.k, index)
        if index != "exact":
            run.note(**{name: {"index": index, "recall": neighbours.recall(vectors, edges, SAMPLE)}})
        run.count(f"{name}: item without direction", len(vectors) - int(unit_rows(vectors)[1].sum()))
        run.write(edges, run.layout.edges(name), EDGES)
        run.rows_in += len(vectors)
        run.rows_out += len(edges)
    io.keep_only(run.folder, (run.layout.edges(name) for name in names))


GRAPH = Stage(
    "graph",
    does="nearest neighbours of every feature set",
    writes="`<features>/edges.parquet`",
    reads=(ENCODE,),
    params=Graph,
    main=main,
)
