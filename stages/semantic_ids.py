"""semantic_ids: feature sets -> <feature set>/<method>/{semantic_ids.parquet,codebooks.safetensors,codes.json}."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.semantic_ids.params import SemanticIds
from pipeline.semantic_ids.registry import METHODS
from pipeline.stage import FEATURE_SETS, Stage
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS
from stages.items import ITEMS

if TYPE_CHECKING:
    from pipeline.semantic_ids.judge import Judge


def main(run: Run) -> None:
    from pipeline.semantic_ids import files, judge  # load SciPy

    layout = run.layout
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    params = run.params[SemanticIds].for_items(len(ids))
    paths = run.read(layout.items, schemas.ITEMS, ["categories"])["categories"]
    judge_of = cache(lambda name: judge.read(layout, name, run.seed("judge", name), params.probed_items))
    jobs = [(name, method) for name in params.features for method in params.methods]
    for name, method in run.progress(jobs, unit="set"):
        _code(run, params, name, method, ids.append_column("categories", paths), judge_of)
    io.keep_only(run.folder, [layout.semantic_ids(*job) / part for job in jobs for part in files.NAMES])
    run.rows_in = run.rows_out = len(ids) * len(jobs)


def _code(
    run: Run, params: SemanticIds, name: str, method: str, ids: pa.Table, judge_of: Callable[[str], Judge]
) -> None:
    from pipeline.semantic_ids import build, collisions, files, judge  # load FAISS

    layout = run.layout
    folder, source = layout.semantic_ids(name, method), layout.features(name)
    shards, own = io.shards(source, "features"), build.settings(params, method)
    facts = files.Facts(
        features=name, features_sha256=io.digest(shards), width=io.width(source), method=method,
        settings=own.model_dump(mode="json"), levels=params.levels, codes=params.codes,
        collisions=params.collisions, seed=params.seed,
    )  # fmt: skip
    parts = params.parts(method)
    inputs = [*shards, *judge.inputs(layout, name), *(path for part in parts for path in METHODS.source_files(part))]
    modules = [*map(METHODS.module, parts), build.__name__, judge.__name__]
    run.resume(folder, inputs, facts.model_dump(), params.fit_rows, params.probed_items, modules=modules)
    if all((folder / part).exists() for part in files.NAMES):
        return
    given, directed = build.vectors(source, params.fit_rows, run.seed("sample", name), ids["categories"])
    try:
        fitted = METHODS[method].fit(given, facts.shape, own, run.seed(name, method), run.progress)
    except UserError as e:
        raise UserError(f"semantic IDs of {name} by {method}: {e}") from None
    coding = build.coded(fitted, given, params.collisions)
    for fault in build.collapsed(coding.assigned, params.codes):
        run.warn(f"{name} by {method}: {fault}")
    table = build.table(ids, directed, coding.codes, coding.suffix, coding.cosines)
    run.write(table, folder / files.IDS, schemas.semantic_ids(params.levels), features=name, method=method)
    files.write_codebooks(folder, fitted)
    quality = judge_of(name).judged(judge.codes(table, params.codes, coding.assigned), fitted)
    files.write_facts(folder, facts.model_copy(update={"quality": quality, "history": list(fitted.history)}))
    run.count(f"{name}: item without content", int((~directed).sum()))
    if params.collisions == "reassign":
        run.count(f"{name} by {method}: item without a free code", int((collisions.suffixes(coding.codes) > 0).sum()))


SEMANTIC_IDS = Stage(
    "semantic_ids",
    does="feature sets -> a few discrete codes an item, with codebooks and a judgement",
    writes="`<features>/<method>/`: `semantic_ids.parquet`, `codebooks.safetensors`, `codes.json`; "
    "[how](semantic-ids.md)",
    reads=(INTERACTIONS, ITEMS, ENCODE, GRAPH),
    sections=FEATURE_SETS,
    params=SemanticIds,
    main=main,
    loads=(PROBES, METHODS),
)
