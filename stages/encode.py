"""encode: items -> feature sets, a folder each: content encoders, imported files, controls."""

from __future__ import annotations

import shutil

import schemas
from pipeline.errors import UserError
from pipeline.features.sets import FeatureSets
from pipeline.features.write import write_all
from pipeline.run import Run


def main(run: Run) -> None:
    """Make every feature set that the parameters name, a shard at a time; delete the others.

    Raises:
        UserError: feature sets failed; all others have been made.
    """
    ids = run.read(run.layout.item_ids, schemas.ITEM_IDS)
    texts = run.read(run.layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    sets = FeatureSets.of(run.layout, run.params.encode, run.params.encoders)
    for folder in run.folder.glob("*/"):
        if folder.name not in sets.names:
            shutil.rmtree(folder)
    failed = write_all(run, sets, ids, texts)
    if faults := [error for error in failed.values() if not isinstance(error, UserError)]:
        raise faults[0]
    if failed:
        said = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(f"encode {run.dataset}: {len(failed)} of {len(sets.names)} feature sets failed: {said}")
    run.rows_in, run.rows_out = len(ids), len(ids) * len(sets.names)
    run.count("item without text", sum(not text.strip() for text in texts))
