"""The released recommender: AlignRec trained on one feature set.

With its vectors, index and training curve.
"""

from typing import Any, cast

import torch
from safetensors.torch import save

from alignrec.pipeline import io
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import embeddings, inputs, retrieval
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.run import Run


def train_released(run: Run, features: str, params: Train, exact_up_to: int) -> None:
    """Train AlignRec on a feature set, and write its vectors, index and history.

    The index is exact for at most `exact_up_to` items.
    """
    layout = run.layout
    torch.set_num_threads(params.threads)
    run.device = str(pick_device())
    data = inputs.read_inputs(layout, features)
    for reason, n in data.split.dropped.items():
        run.count(reason, n)

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
        )
        # early stopping may end training before the last epoch
        bar.total = len(trained.history)
    run.note(best_epoch=trained.best_epoch, epochs=len(trained.history), **trained.valid)

    user, item = cast(Any, (trained.user, trained.item))  # AlignRec's are dense
    run.rows_in = len(data.split.train)
    run.rows_out = embeddings.write_embeddings(run, user, item)
    retrieval.write_index(layout, exact_up_to)
    io.write_bytes(layout.model, save(trained.state))
    io.write_json(layout.history("train"), trained.history)
    checkpoint.clear()
