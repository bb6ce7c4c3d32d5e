"""Feature sets -> semantic IDs: <feature set>/<method>/{semantic_ids.parquet,codebooks.safetensors,codes.json}."""

from functools import cache

import schemas
from pipeline import io
from pipeline.run import Run
from pipeline.semantic_ids import build, files, judge
from pipeline.semantic_ids.registry import METHODS


def main(run: Run) -> None:
    """Code every feature set that the parameters name, by every method."""
    params, layout = run.params.semantic_ids, run.layout
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    judge_of = cache(lambda name: judge.read(layout, name, run.seed("judge", name), params.probed_items))
    jobs = [(name, method) for name in params.features for method in params.methods]
    for name, method in run.progress(jobs, unit="set"):
        folder, source = layout.semantic_ids(name, method), layout.features(name)
        shards = io.shards(source, "features")
        own = build.settings(params, method)
        facts = files.Facts(
            features=name, features_sha256=io.digest(shards), width=build.width(source), method=method,
            settings=own.model_dump(mode="json"), levels=params.levels, codes=params.codes,
            collisions=params.collisions, seed=params.seed,
        )  # fmt: skip
        run.resume(
            folder, [*shards, *judge.inputs(layout, name)], facts.model_dump(), params.fit_rows, params.probed_items,
            modules=[METHODS.module(method), build.__name__, judge.__name__],
        )  # fmt: skip
        if (folder / files.FACTS).exists():
            continue
        given, directed = build.vectors(source, params.fit_rows, run.seed("sample", name))
        fitted = METHODS[method].fit(given, facts.shape, own, run.seed(name, method))
        table = build.table(ids, directed, *build.coded(fitted, given, params.collisions))
        run.write(table, folder / files.IDS, schemas.semantic_ids(params.levels), features=name, method=method)
        files.write_codebooks(folder, fitted)
        before = fitted.assign(given) if params.collisions == "reassign" else None
        quality = judge_of(name).judged(judge.codes(table, params.codes, before), fitted)
        files.write_facts(folder, facts.model_copy(update={"quality": quality}))
        run.count(f"{name}: item without content", int((~directed).sum()))
    made = [layout.semantic_ids(*job) / name for job in jobs for name in (files.IDS, files.CODEBOOKS, files.FACTS)]
    io.keep_only(run.folder, made)
    run.rows_in = run.rows_out = len(ids) * len(jobs)
