"""Stage graph: nearest neighbours of items per feature set."""

from alignrec.pipeline.graph.params import Graph
from alignrec.pipeline.harness.run import Run, Stage
from alignrec.pipeline.io.errors import UserError
from alignrec.stages.combine import FEATURES


def main(run: Run) -> None:
    from alignrec.pipeline.graph import neighbours  # loads FAISS

    if not (names := run.layout.feature_sets()):
        raise UserError(f"{run.layout.folder('encode')}: no feature sets; run `alignrec encode {run.dataset}` first")
    run.device = "cuda" if neighbours.has_gpu() else "cpu"
    for name in run.progress(names, unit="set"):
        neighbours.write_edges(run, name)


GRAPH = Stage(
    "graph", does="nearest neighbours of every feature set",
    writes="`<features>/edges.parquet`", reads=FEATURES, params=Graph, main=main,
)  # fmt: skip
