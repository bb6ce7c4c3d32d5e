"""study: mask modality, long tail, arms of pre-training, sweeps, codes in use -> tables, and means in study.json."""

from __future__ import annotations

import schemas
from pipeline import io
from pipeline.evaluation.protocol import protocol
from pipeline.run import Run
from pipeline.study import arms, generative, masking, summaries, sweeps, tail
from pipeline.train import inputs

PARTS = (masking.study, tail.study, arms.study, sweeps.study, generative.study)


def main(run: Run) -> None:
    """Train what has no record yet, and write a table a part."""
    layout = run.layout
    rules = protocol(run.params, run.dataset, inputs.read(layout, None).split)
    made = [path for study in PARTS for path in study(run, rules)]
    mask = run.read(layout.study("mask"), schemas.MASK)
    io.write_json(layout.study_metrics, summaries.metrics(mask))
    io.write_json(layout.study_plot("mask"), summaries.mask_points(mask))
    io.keep_only(run.folder, [*made, layout.study_metrics, layout.study_plot("mask")])
    run.rows_in, run.rows_out = len(layout.feature_sets()), len(mask)
