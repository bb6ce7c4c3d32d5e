"""The released recommender: AlignRec trained on one feature set.

With its vectors, index and training curve.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from safetensors.torch import save

from alignrec.pipeline import io
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import embeddings, inputs, retrieval
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.models.training.start import Start, match_start
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.run import Run


def train_released(
    run: Run, features: str, params: Train, exact_up_to: int, start: Start | None = None
) -> None:
    """Train AlignRec on a feature set, and write its vectors, index and history.

    The index is exact for at most `exact_up_to` items.
    """
    layout = run.layout
    torch.set_num_threads(params.threads)
    run.device = str(pick_device())
    data = inputs.read_inputs(layout, features)
    for reason, n in data.split.dropped.items():
        run.count(reason, n)

    initialise = None
    if start is not None:
        initialise = _match_start(run, start, data)

    checkpoint = Checkpoint(layout.checkpoint, params.checkpoint_every)
    with run.progress(total=params.epochs, unit="epoch") as bar:

        def show_epoch(line: dict[str, Any]) -> None:
            figures = f"loss {line['loss']:.4f}, valid Recall@20 {line['valid_recall@20']:.4f}"
            bar.set_postfix_str(figures, refresh=False)
            bar.update(line["epoch"] + 1 - bar.n)

        trained = fit(
            AlignRec,
            *data,
            params,
            run.seed(),
            show_epoch,
            checkpoint,
            initialise=initialise,
        )
        # early stopping may end training before the last epoch
        bar.total = len(trained.history)
    run.note(best_epoch=trained.best_epoch, epochs=len(trained.history), **trained.valid)

    user, item = cast(Any, (trained.user, trained.item))  # AlignRec's are dense
    run.rows_in = len(data.split.train)
    manifest = start.manifest if start else None
    run.rows_out = embeddings.write_embeddings(run, user, item, start=manifest)
    retrieval.write_index(layout, exact_up_to)
    io.write_bytes(layout.model, save(trained.state))
    io.write_json(layout.history("train"), trained.history)
    checkpoint.clear()


def _match_start(run: Run, start: Start, data: inputs.TrainingData) -> Callable[[AlignRec], object]:
    """Record what training starts from, and return what sets the network's embeddings."""
    assert data.edges is not None
    matched = match_start(start, run.layout, data.split, data.edges)
    run.note(start={"manifest": start.manifest, **matched.facts})
    held_out = matched.facts.get("held_out", 0)
    if held_out:
        total = len(data.split.valid) + len(data.split.test)
        run.warn(
            f"train.start was trained on {held_out:,} of {total:,} valid and test interactions, "
            "so valid Recall@20 is too high; keep the split of its interactions"
        )
    return matched.initialise
