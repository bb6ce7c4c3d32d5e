"""Feature sets -> item neighbours: outputs/graph/<dataset>/<feature set>/edges.parquet."""

from pipeline import graph, io
from pipeline.run import Run
from schemas import EDGES


def main(run: Run) -> None:
    """Search every feature set that encode left."""
    names = sorted(p.name for p in run.layout.folder("encode").iterdir() if p.is_dir())
    for name in run.progress(names, unit="set"):
        vectors = io.matrix(io.read_features(run.layout.features(name))["vector"])
        edges = graph.neighbours(vectors, run.params.graph.k)
        run.count(f"{name}: item without direction", len(vectors) - int(graph.normalise(vectors)[1].sum()))
        run.write(edges, run.layout.edges(name), EDGES)
        run.rows_in += len(vectors)
        run.rows_out += len(edges)
    io.keep_only(run.folder, (run.layout.edges(name) for name in names))
