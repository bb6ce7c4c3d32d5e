"""Models x feature sets x seeds -> one record a run; results, slices, paired tests, and the headline means."""

import schemas
from pipeline import io, pool
from pipeline.benchmark import findings, jobs
from pipeline.evaluation.protocol import protocol
from pipeline.models import MODELS
from pipeline.run import Run
from pipeline.train import inputs


def main(run: Run) -> None:
    """Train what has no record yet, then gather the records."""
    params, layout = run.params.benchmark, run.layout
    planned = jobs.jobs(run.params)
    parts = inputs.read(layout, None).split
    run.params.fits(parts.n_items)
    rules = protocol(run.params, run.dataset, parts)
    for group in sorted({job._replace(seed=0) for job in planned}):
        settings = run.params.settings(group.model, group.ablation).model_dump()
        facts = (rules.fingerprint, params.ks, settings, params.modalities.get(group.features, []))
        folder = layout.runs(group.model, group.features, group.ablation)
        files, modules = inputs.files(layout, group.content), ["pipeline.benchmark.jobs", MODELS.module(group.model)]
        run.resume(folder, [*files, *MODELS.source_files(group.model)], *facts, modules=modules)

    todo = jobs.by_length(job for job in planned if not layout.trial(*job).exists())
    trial = jobs.Trial(layout, run.params, rules)
    for job, results in run.progress(pool.each(trial, todo, params.workers), total=len(todo), unit="run"):
        for result in reversed(results):  # the record that says that the run is done comes last
            rankings = layout.trial_rankings(*job, suffix=result.suffix)
            io.write_table(result.rankings(), rankings, schemas.rankings(max(params.ks)))
            io.write_json(layout.trial(*job, suffix=result.suffix), result.record)

    tables = findings.gather(layout, planned, parts, params.ks, rules, run.params.train.features)
    run.write(tables.results, layout.results, schemas.RESULTS)
    run.write(tables.slices, layout.slices, schemas.SLICES)
    run.write(tables.tests, layout.tests, schemas.TESTS)
    io.write_json(layout.protocol, [judging.described() for judging in rules.variants])
    io.write_json(layout.metrics, tables.summary)
    made = [layout.results, layout.slices, layout.tests, layout.protocol, layout.metrics]
    runs = [(job, judging.suffix) for job in planned for judging in rules.variants]
    for path in (layout.trial, layout.trial_rankings):
        made += [path(*job, suffix=suffix) for job, suffix in runs]
    io.keep_only(run.folder, made)
    run.rows_in, run.rows_out = len(planned), len(planned)
