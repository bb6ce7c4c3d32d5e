"""Stage graph: nearest neighbours of items per feature set."""

from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import Stage
from alignrec.stages.combine import FEATURE_SET_STAGES


def main(run: Run) -> None:
    from alignrec.pipeline.features import graph  # loads FAISS

    names = run.layout.feature_sets()
    if not names:
        where = run.layout.folder("encode")
        raise UserError(f"{where}: no feature sets; run `alignrec encode {run.dataset}` first")

    graph.write_graphs(run, names)


GRAPH = Stage(
    "graph",
    does="nearest neighbours of every feature set",
    writes="`<features>/edges.parquet`",
    reads=FEATURE_SET_STAGES,
    params=Graph,
    resumes=True,
    main=main,
)
