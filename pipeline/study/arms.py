"""Arms of pre-training: encoders trained with other keys of `pretrain`, judged and recommended with."""

from __future__ import annotations

from pathlib import Path

import schemas
from pipeline.errors import UserError
from pipeline.evaluation.protocol import Protocol
from pipeline.run import Run


def study(run: Run, rules: Protocol) -> list[Path]:
    """Write table ARMS; return the files of this part.

    Args:
        run: of the stage.
        rules: by which epochs are chosen.
    """
    if run.params.study.arms:
        raise UserError("'study.arms' is not available yet; leave it empty")
    table = run.layout.study("arms")
    run.write(schemas.ARMS.empty_table(), table, schemas.ARMS)
    return [table]
