"""train: split, one feature set and its graph -> the released recommender, its vectors and its training curve."""

from functools import partial
from typing import Any, cast

from tqdm import tqdm

from alignrec.pipeline import io
from alignrec.pipeline.graph.params import Graph
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import FEATURE_SETS, Stage
from alignrec.pipeline.train import inputs
from alignrec.pipeline.train.params import Released
from alignrec.stages.combine import FEATURES
from alignrec.stages.graph import GRAPH
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    import torch
    from safetensors.torch import save

    from alignrec.pipeline.models.alignrec import AlignRec
    from alignrec.pipeline.ops.checkpoint import Checkpoint
    from alignrec.pipeline.ops.device import pick_device
    from alignrec.pipeline.train import embeddings, retrieval
    from alignrec.pipeline.train.loop import fit

    own, layout = run.params[Released], run.layout
    params = own.resolved()
    run.resume(run.folder, inputs.input_files(layout, own.features), own.facts(), run.params[Graph].exact_up_to)
    if run.finished():
        return  # what was encoded or searched meanwhile is another feature set
    torch.set_num_threads(params.threads)
    run.device = str(pick_device())
    data = inputs.read_inputs(layout, own.features)
    for reason, n in data.split.dropped.items():
        run.count(reason, n)
    checkpoint = Checkpoint(layout.checkpoint, params.checkpoint_every)
    with run.progress(total=params.epochs, unit="epoch") as bar:
        trained = fit(AlignRec, *data, params, run.seed(), partial(show_epoch, bar), checkpoint)
        bar.total = len(trained.history)  # it may end before the last epoch that was allowed
    run.note(best_epoch=trained.best_epoch, epochs=len(trained.history), **trained.valid)
    rows = embeddings.write_embeddings(run, *cast(Any, (trained.user, trained.item)))  # AlignRec's are dense
    retrieval.write_index(layout, run.params[Graph].exact_up_to)
    io.write_bytes(layout.model, save(trained.state))
    io.write_json(layout.history("train"), trained.history)
    checkpoint.clear()
    run.rows_in, run.rows_out = len(data.split.train), rows


def show_epoch(bar: tqdm, line: dict[str, Any]) -> None:
    bar.set_postfix_str(f"loss {line['loss']:.4f}, valid Recall@20 {line['valid_recall@20']:.4f}", refresh=False)
    bar.update(line["epoch"] + 1 - bar.n)


TRAIN = Stage(
    "train",
    does="AlignRec on one feature set -> user and item embeddings",
    writes="`model.safetensors`, `history.json`, `user_embeddings.parquet`, `item_embeddings.parquet`, a FAISS index",
    reads=(INTERACTIONS, *FEATURES, GRAPH),
    sections=("graph.exact_up_to", *FEATURE_SETS),
    params=Released,
    main=main,
    resumes=True,
)
