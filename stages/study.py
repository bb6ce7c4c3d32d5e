"""study: the tables of the article beyond the benchmark -> mask, tail, arms and sweeps."""

from __future__ import annotations

from pipeline import io
from pipeline.evaluation.protocol import protocol
from pipeline.run import Run
from pipeline.study import arms, sweeps
from pipeline.train import inputs

PARTS = (arms.study, sweeps.study)


def main(run: Run) -> None:
    """Train what has no record yet, and write a table a part."""
    rules = protocol(run.params, run.dataset, inputs.read(run.layout, None).split)
    made = [path for study in PARTS for path in study(run, rules)]
    io.keep_only(run.folder, made)
    run.rows_in = run.rows_out = len(made)
