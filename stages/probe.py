"""probe: every feature set judged without a recommender, and one retrained with a modality masked -> probes.json."""

from __future__ import annotations

import schemas
from pipeline import io, pool
from pipeline.evaluation.protocol import protocol
from pipeline.probe import categories, masking, questions
from pipeline.probe.base import Data
from pipeline.run import Run
from pipeline.train import inputs


def main(run: Run) -> None:
    """Ask every probe's questions of every feature set, then train what mask modality still lacks."""
    params, layout = run.params.probe, run.layout
    interactions = run.read(layout.interactions, schemas.INTERACTIONS)
    items = len(run.read(layout.item_ids, schemas.ITEM_IDS))
    names = layout.feature_sets()
    described = run.read(layout.items, schemas.ITEMS, ["categories"])
    read = categories.read_categories(layout, names, "categories" in schemas.text_fields(described))
    data = Data(interactions, items, described["categories"].to_pylist(), read)
    sets = ((name, io.matrix(io.read_features(layout.features(name))["vector"])) for name in names)
    probes, withheld = questions.ask(data), questions.withheld(data)
    bar = run.progress(sets, total=len(names), unit="set")
    answers = questions.answers(probes, bar, params.ks, run.seed("folds"), withheld)
    figures = questions.summaries(probes, answers, params.ks, withheld)

    rules = protocol(run.params, run.dataset, inputs.read(layout, None).split)
    maskable = masking.maskable(layout)
    jobs = masking.jobs(maskable, params.mask_seeds)
    for name in maskable:
        facts = rules.fingerprint, run.params.train.model_dump(), run.params.graph.k, params.mask_ratio
        run.resume(layout.mask_trials(name), masking.files(layout, name), *facts)
    todo = [job for job in jobs if not layout.mask_trial(*job).exists()]
    trial = masking.Trial(layout, run.params, rules)
    for job, record in run.progress(pool.each(trial, todo, params.workers), total=len(todo), unit="run"):
        io.write_json(layout.mask_trial(*job), record)
    records = [io.read_json(layout.mask_trial(*job)) for job in jobs]
    skipped = {"skipped": "no feature set has both modalities masked"}
    figures["mask_modality"] = masking.judged(records) if records else skipped

    io.write_json(layout.probes, figures)
    io.keep_only(run.folder, [layout.probes, *(layout.mask_trial(*job) for job in jobs)])
    run.rows_in, run.rows_out = len(names), len(jobs)
