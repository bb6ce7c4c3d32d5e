"""benchmark: models x feature sets x seeds -> one record a run; results, slices, paired tests, and the headline means.

With a budget, settings are first tried on valid, the same number for every model and feature set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import schemas
from pipeline import io
from pipeline.benchmark import cutoffs
from pipeline.benchmark.params import Benchmark, Sweep
from pipeline.interactions.params import Interactions
from pipeline.models import MODELS, RELEASED
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import Needs, Stage
from pipeline.train import inputs
from pipeline.train.params import Released
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS
from stages.train import TRAIN

if TYPE_CHECKING:
    from pipeline.benchmark.tuning import Tuned, TuningJob
    from pipeline.evaluation.protocol import Protocol


def main(run: Run) -> None:
    """Train what has no record yet, then gather the records."""
    from pipeline import engine
    from pipeline.benchmark import findings, jobs, tuning  # load torch
    from pipeline.benchmark.settings import model_settings, protocol_of

    params, layout = run.params[Benchmark], run.layout
    planned = jobs.jobs(run.params)
    parts = inputs.read(layout, None).split
    cutoffs.check(params, parts.n_items)
    rules = protocol_of(run.params, run.dataset, parts)
    tries = tuning.tuning_jobs(run.params, run.dataset, planned)
    tuned = _tune(run, tries, rules)
    for group in sorted({job._replace(seed=0) for job in planned}):
        settings = model_settings(tuned.params(run.params, group), group.model, group.ablation).model_dump()
        facts = (rules.fingerprint, params.ks, settings, params.modalities.get(group.features, []))
        folder = layout.runs(group.model, group.features, group.ablation)
        files, modules = inputs.files(layout, group.content), ["pipeline.benchmark.jobs", MODELS.module(group.model)]
        run.resume(folder, [*files, *MODELS.source_files(group.model)], *facts, modules=modules)

    todo = jobs.by_length(job for job in planned if jobs.is_lacking(layout, job, rules))
    trial = tuning.TunedTrial(jobs.Trial(layout, run.params, rules), tuned)
    for job, results in run.progress(engine.each(trial, todo, params.workers), total=len(todo), unit="run"):
        jobs.write(layout, job, results, params.ks)

    tables = findings.gather(layout, planned, parts, params.ks, rules, run.params[Released].features, params.control)
    run.write(tables.results, layout.results, schemas.RESULTS)
    run.write(tables.slices, layout.slices, schemas.SLICES)
    run.write(tables.tests, layout.tests, schemas.TESTS)
    io.write_json(layout.protocol, [judging.described() | tuned.described(run.params) for judging in rules.variants])
    io.write_json(layout.metrics, tables.summary | tuned.summary())
    made = [layout.results, layout.slices, layout.tests, layout.protocol, layout.metrics]
    if tries:
        run.write(tuned.table(), layout.tuning, schemas.TUNING)
        made += [layout.tuning, *(layout.tuning_trial(*job) for job in tries)]
        run.note(tuning={"tried": len(tries), **tuned.described(run.params)["tuning"]})
    runs = [(job, judging.suffix) for job in planned for judging in rules.variants]
    for path in (layout.trial, layout.trial_rankings):
        made += [path(*job, suffix=suffix) for job, suffix in runs]
    io.keep_only(run.folder, made)
    run.rows_in, run.rows_out = len(planned), len(planned)


def _tune(run: Run, tries: Sequence[TuningJob], rules: Protocol) -> Tuned:
    """Try the settings that have no record yet; return all."""
    from pipeline import engine
    from pipeline.benchmark import tuning

    params, layout = run.params, run.layout
    for group in sorted({job._replace(number=0) for job in tries}):
        files, facts, modules = tuning.inputs_of(layout, params, group)
        run.resume(layout.tunings(group.model, group.features), files, rules.fingerprint, *facts, modules=modules)
    todo = [job for job in tries if not layout.tuning_trial(*job).exists()]
    tried = engine.each(tuning.Tuner(layout, params), todo, params[Benchmark].workers)
    for job, record in run.progress(tried, total=len(todo), unit="setting", what="settings") if todo else ():
        io.write_json(layout.tuning_trial(*job), record)
    return tuning.Tuned([io.read_json(layout.tuning_trial(*job)) for job in tries])


def needs(run: Run) -> Needs:
    """The ranges that a budget draws from count where there is one."""
    params = run.params
    facts = [TRAIN.facts(run), params[Interactions].model_dump(mode="json"), run.source.model_dump(mode="json")]
    if params[Benchmark].budget:
        facts.append(params[Sweep].model_dump(mode="json", include={"spaces"}))
    models = [(MODELS, name) for name in dict.fromkeys([*params[Benchmark].models, RELEASED])]
    return BENCHMARK.depends(run, *facts, parts=[(SOURCES, run.source.kind), *models])


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`",
    reads=(INTERACTIONS, ENCODE, GRAPH),
    params=Benchmark,
    speed=frozenset({"workers"}),
    main=main,
    needs=needs,
    loads=(SOURCES, MODELS),
)
