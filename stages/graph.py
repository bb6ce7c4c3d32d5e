"""Feature sets -> item neighbours: outputs/graph/<dataset>/<feature set>/edges.parquet."""

from pipeline import io
from pipeline.errors import UserError
from pipeline.graph import gpu, neighbours
from pipeline.ops.rows import unit_rows
from pipeline.run import Run
from schemas import EDGES

SAMPLE = 1000
"""items on which an approximate index's recall is measured"""


def main(run: Run) -> None:
    """Search every feature set that encode wrote."""
    params = run.params.graph
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
