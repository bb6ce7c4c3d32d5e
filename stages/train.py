"""Split, one feature set and its graph -> the released recommender, its vectors and its training curve."""

from functools import partial
from typing import Any

import torch
from safetensors.torch import save
from tqdm import tqdm

import schemas
from pipeline import io
from pipeline.models.alignrec import AlignRec
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.device import pick
from pipeline.run import Run
from pipeline.train import inputs
from pipeline.train.loop import fit
from stages import needs


def main(run: Run) -> None:
    """Train AlignRec, resuming where a killed run left off."""
    params, layout = run.params.train, run.layout
    files, facts, _ = needs.of(run)
    run.resume(run.folder, files, facts)
    torch.set_num_threads(params.threads)
    run.device = str(pick())
    data = inputs.read(layout, params.features)
    for reason, n in data.split.dropped.items():
        run.count(reason, n)
    checkpoint = Checkpoint(layout.checkpoint, params.checkpoint_every)
    with run.progress(total=params.epochs, unit="epoch") as bar:
        trained = fit(AlignRec, *data, params, run.seed(), partial(_show, bar), checkpoint)
        bar.total = len(trained.history)  # it may end before the last epoch that was allowed
    run.note(best_epoch=trained.best_epoch, epochs=len(trained.history), **trained.valid)

    users = io.read_table(layout.users, schemas.USERS)
    items = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    users = users.append_column("vector", io.vectors(trained.user))
    items = items.append_column("vector", io.vectors(trained.item))
    run.write(users, layout.user_embeddings, schemas.user_embeddings(params.dim))
    run.write(items, layout.item_embeddings, schemas.item_embeddings(params.dim))
    io.write_bytes(layout.model, save(trained.state))
    io.write_json(layout.history("train"), trained.history)
    checkpoint.clear()
    run.rows_in, run.rows_out = len(data.split.train), len(users) + len(items)


def _show(bar: tqdm, line: dict[str, Any]) -> None:
    """Move the bar to an epoch of the history, which may be one of a resumed run, with its figures."""
    bar.set_postfix_str(f"loss {line['loss']:.4f}, valid Recall@20 {line['valid_recall@20']:.4f}", refresh=False)
    bar.update(line["epoch"] + 1 - bar.n)
