"""Settings of one model -> every setting's valid figure, heat maps, and the winner's results. Not part of dvc.yaml."""

from functools import partial

import pyarrow as pa

import schemas
from pipeline import engine, io
from pipeline.benchmark import findings, sweep
from pipeline.benchmark.params import Benchmark, Sweep
from pipeline.benchmark.settings import protocol_of
from pipeline.benchmark.study import Study
from pipeline.models import MODELS
from pipeline.run import Run
from pipeline.train import inputs


def main(run: Run, plan: sweep.Plan) -> None:
    """Try what has not been tried, then train the winner over the benchmark's seeds and open test."""
    params, layout, workers = run.params, run.layout, run.params[Sweep].workers
    files = [*inputs.files(layout, plan.content), *MODELS.source_files(plan.model)]
    rules = protocol_of(params, run.dataset, inputs.read(layout, None).split)
    run.resume(layout.sweep(*plan.names), files, rules.fingerprint, plan.facts(params))
    study = Study(layout.sweep_study(*plan.names), params[Sweep], plan.space, run.seed(*plan.names), plan.first)
    attempt = partial(sweep.Attempt, layout, params, rules, plan)
    suggestions = study.ask(plan.trials)
    with run.progress(
        total=plan.trials, initial=len(study.outcomes()), unit="setting", what=" ".join(plan.names)
    ) as bar:
        for _, outcome in engine.map(attempt, suggestions, engine.Processes(workers)):
            study.tell(outcome)
            bar.update()

    outcomes = study.outcomes()[: plan.trials]
    won = {by: sweep.best(outcomes, by) for by in (("valid", "test") if params[Sweep].test_selected else ("valid",))}
    final_trial = sweep.FinalTrial(layout, params, rules, plan, {t.number: setting for setting, t in won.values()})
    final_jobs = [
        sweep.FinalJob(number, seed) for number in final_trial.chosen for seed in range(params[Benchmark].seeds)
    ]
    runs = engine.each(final_trial, final_jobs, workers)
    records = dict(run.progress(runs, total=len(final_jobs), unit="run", what="winner"))
    results = [
        findings.results(run.dataset, [r for job in final_jobs if job.trial == best.number for r in records[job]], by)
        for by, (_, best) in won.items()
    ]
    names = list(plan.space)
    run.write(sweep.table(outcomes, names), layout.sweep_trials(*plan.names), schemas.trials(names))
    io.write_json(layout.sweep_effects(*plan.names), sweep.effects(outcomes, plan.space))
    run.write(pa.concat_tables(results), layout.sweep_results(*plan.names), schemas.RESULTS)
    all_effects = {names: io.read_json(layout.sweep_effects(*names)) for names in layout.sweeps()}
    io.write_json(layout.sweep_heatmaps(), sweep.heatmaps(all_effects))
    run.rows_in, run.rows_out = plan.trials, len(outcomes)
