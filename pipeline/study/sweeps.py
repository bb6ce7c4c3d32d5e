"""Sweeps: AlignRec with other settings, graphs and encoders, measured on valid alone."""

from __future__ import annotations

from pathlib import Path

import schemas
from pipeline.errors import UserError
from pipeline.evaluation.protocol import Protocol
from pipeline.run import Run


def study(run: Run, rules: Protocol) -> list[Path]:
    """Write table SWEEPS; return the files of this part.

    Args:
        run: of the stage.
        rules: by which epochs are chosen.
    """
    if run.params.study.sweeps:
        raise UserError("'study.sweeps' is not available yet; leave it empty")
    table = run.layout.study("sweeps")
    run.write(schemas.SWEEPS.empty_table(), table, schemas.SWEEPS)
    return [table]
