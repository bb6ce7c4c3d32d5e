"""Models x feature sets x seeds -> one record a run, the long table of results, and the headline means."""

import schemas
from pipeline import benchmark, dataset, io, pool
from pipeline.protocol import Protocol
from pipeline.run import Run


def main(run: Run) -> None:
    """Train what has no record yet, then gather the records."""
    params, layout = run.params.benchmark, run.layout
    jobs = benchmark.jobs(params)
    protocol = Protocol(params.protocol, run.params.interactions.protocol)
    for group in sorted({job._replace(seed=0) for job in jobs}):
        settings = params.settings(group.model, run.params.train).model_dump()
        facts = (protocol.fingerprint, params.ks, settings, params.modalities.get(group.features, []))
        run.resume(layout.trials(group.model, group.features), dataset.files(layout, group.content), *facts)

    todo = benchmark.by_length(job for job in jobs if not layout.trial(*job).exists())
    trial = benchmark.Trial(layout, params, run.params.train, protocol)
    for job, found in run.progress(pool.each(trial, todo, params.workers), total=len(todo), unit="run"):
        io.write_table(found.rankings(), layout.trial_rankings(*job), schemas.rankings(max(params.ks)))
        io.write_json(layout.trial(*job), found.record)

    records = [io.read_json(layout.trial(*job)) for job in jobs]
    headline = 20 if 20 in params.ks else max(params.ks)
    run.write(benchmark.results(run.dataset, records), layout.results, schemas.RESULTS)
    io.write_json(layout.metrics, benchmark.summary(records, headline))
    kept = [path(*job) for job in jobs for path in (layout.trial, layout.trial_rankings)]
    io.keep_only(run.folder, [*kept, layout.results, layout.metrics])
    run.rows_in, run.rows_out = len(jobs), len(jobs)
