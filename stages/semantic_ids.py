"""Stage semantic_ids: discrete codes for items, and their quality."""

from pathlib import Path

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.codebooks import ReleasedCodes, write_codebooks
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.io.errors import UserError
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
    released = _read_released(run, params)

    quality = {}
    for name in run.progress(params.features, unit="set"):
        folder = layout.features(name)
        if name in released:
            coding = semantic_ids.recode_items(folder, ids, released[name])
        else:
            coding = semantic_ids.code_items(folder, params, run.seed(name))
        table = semantic_ids.as_table(ids, coding)
        levels, codes, _ = coding.codebooks.shape
        run.write(table, layout.codes(name), schemas.semantic_ids(levels), features=name)
        write_codebooks(layout.codebooks(name), coding.codebooks)
        core = ReleasedCodes(coding.codebooks, table)
        semantic_ids.write_catalogue(run, name, core, released.get(name))

        seed = run.seed("random", name)
        quality[name] = semantic_ids.judge_codes(coding, layout.edges(name), codes, seed)
        run.count(f"{name}: item without content", int((~coding.directed).sum()))

    io.write_json(layout.code_quality, quality)
    run.rows_in = run.rows_out = len(ids) * len(params.features)


def _read_released(run: Run, params: SemanticIds) -> dict[str, ReleasedCodes]:
    """Return the codes of each feature set in the release that `codebooks` names, if it does."""
    if params.codebooks is None:
        return {}
    from alignrec.pipeline.release.codes import read_codes

    feature_sets = [FeatureSet.of(run.layout, name) for name in params.features]
    try:
        released = read_codes(Path(params.codebooks).expanduser(), feature_sets)
    except UserError as e:
        raise UserError(f"'semantic_ids.codebooks': {e}") from None
    for codes in released.values():
        levels, values, _ = codes.codebooks.shape
        params.refuse_other_sizes(levels, values)
    return released


SEMANTIC_IDS = Stage(
    "semantic_ids",
    does="feature sets -> a few discrete codes an item, judged next to random codes",
    writes="`<features>/codes.parquet`, `<features>/codebooks.safetensors`, `codes.json`; "
    "[how](semantic-ids.md)",
    reads=(INTERACTIONS, *FEATURE_SET_STAGES, GRAPH),
    sections=FEATURE_SETS,
    params=SemanticIds,
    main=main,
    light=True,
)
