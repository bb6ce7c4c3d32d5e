"""Stage semantic_ids: discrete codes for items, and their quality."""

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.graph import GRAPH
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.features import semantic_ids  # loads FAISS

    layout = run.layout
    ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    params = run.params[SemanticIds].for_items(len(ids))

    quality = {}
    for name in run.progress(params.features, unit="set"):
        coding = semantic_ids.code_items(layout.features(name), params, run.seed(name))
        table = semantic_ids.as_table(ids, coding)
        run.write(table, layout.codes(name), schemas.semantic_ids(params.levels), features=name)

        seed = run.seed("random", name)
        quality[name] = semantic_ids.judge_codes(coding, layout.edges(name), params.codes, seed)
        run.count(f"{name}: item without content", int((~coding.directed).sum()))

    io.write_json(layout.code_quality, quality)
    run.rows_in = run.rows_out = len(ids) * len(params.features)


SEMANTIC_IDS = Stage(
    "semantic_ids",
    does="feature sets -> a few discrete codes an item, judged next to random codes",
    writes="`<features>/codes.parquet`, `codes.json`; [how](semantic-ids.md)",
    reads=(INTERACTIONS, *FEATURE_SET_STAGES, GRAPH),
    sections=FEATURE_SETS,
    params=SemanticIds,
    main=main,
    light=True,
)
