"""The training loop of pre-training: AdamW, whose rate and steps `stopping` plans.

Letters: D width of the summary, W width of the teachers' vector.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alignrec.pipeline.beit3.corpus import MaskedBatch, PretrainTask, make_batch, split_batch
from alignrec.pipeline.beit3.losses import (
    MAX_DRAWS,
    TERMS,
    PretrainingModel,
    RunningWhitening,
    autocast,
    encode_items,
    measure_cosine,
    measure_masked,
)
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.stopping import TASKS, learning_rate, plan_ending
from alignrec.pipeline.beit3.summaries import fit_ridge
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.checkpoint import Checkpoint, adam_state, restore_adam
from alignrec.pipeline.runtime.seeds import seed_for

MAX_GRADIENT_NORM = 3.0
MEASUREMENTS = 20  # measurements on held-out items per training run
MIN_STEPS_PER_MEASUREMENT = 10
MASK_DRAWS = 1  # of masks in a measurement
MASK_DRAWS_TO_STOP = 2  # likewise, if the figures decide when training ends

ADAM_BETAS = (0.9, 0.98)  # as in BEiT
ADAM_EPSILON = 1e-6
UNDECAYED = (  # parts of the names of parameters without weight decay
    "cls_token",
    "mask_token",
    "embed_positions",
    "image.positions",
    "text.positions",
)

PIECES = "network.beit3.text_embed"  # piece embeddings
NEW_IN_MINI = (  # parameters that MiniLM lacks
    "network.image.",
    "network.mim_head.",
    "network.mlm_head.",
    "teacher.",
)
NEW_RATE_FACTOR = 10.0  # learning rate of these; most pieces occur in few steps

MAX_HEAD_ITEMS = 2000  # items that the teachers' head of `mini` is fitted to


class Trainer(NamedTuple):
    """The model, its wrapper for several processes, and the optimiser."""

    model: PretrainingModel
    distributed: nn.Module  # the model, or its DistributedDataParallel wrapper
    optimizer: torch.optim.AdamW


@dataclass
class TrainState:
    """Progress of a training run."""

    step: int = 0  # steps taken
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry per measurement
    # the loss and its terms, summed since the last measurement
    sums: list[float] = field(default_factory=lambda: [0.0] * (1 + len(TERMS)))


def fit(
    network: BEiT3OrMini,
    task: PretrainTask,
    checkpoint: Checkpoint,
    report_steps: Callable[[int], object],
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """Train in place, from the checkpoint if any; `report_steps` gets the number of new steps.

    Returns the history, one entry per measurement, and the map to the teachers, float32 [D, W],
    None without teachers or steps. UserError for a loss that is not finite, or for batches too
    small for the processes and `accumulate`.
    """
    trainer = _build_trainer(network, task)
    state = _restore_state(trainer, checkpoint)
    if not state.step and isinstance(network, Mini):
        start_head(trainer.model, task)

    steps_per_epoch = math.ceil(len(task.train) / task.params.batch_size)
    steps = task.params.steps if steps_per_epoch else 0
    steps_per_measurement = max(MIN_STEPS_PER_MEASUREMENT, math.ceil(steps / MEASUREMENTS))
    report_steps(state.step)

    batches: list[np.ndarray] = []
    patience = task.params.patience
    draws = MASK_DRAWS_TO_STOP if patience else MASK_DRAWS
    ending = plan_ending(state.history, steps, patience)
    while state.step < ending.last:
        epoch, number = divmod(state.step, steps_per_epoch)
        if not batches or number == 0:
            batches = _plan_epoch(task, epoch)

        rate = learning_rate(state.step, ending, task.params.lr)
        losses = _take_step(trainer, task, batches[number], epoch, rate)
        state.sums = (np.array(state.sums) + losses).tolist()
        state.step += 1
        report_steps(1)

        is_last = state.step == ending.last
        if is_last or state.step % steps_per_measurement == 0:
            _record_measurement(trainer, task, state, rate, MAX_DRAWS if is_last else draws)
            ending = plan_ending(state.history, steps, patience)
        if not is_last and state.step % checkpoint.every == 0 and process.rank() == 0:
            _save_state(trainer, checkpoint, state)

    taught = trainer.model.taught() if state.step else None
    return state.history, None if taught is None else taught.cpu().numpy()


def _build_trainer(network: BEiT3OrMini, task: PretrainTask) -> Trainer:
    params = task.params
    torch.set_num_threads(params.threads)
    torch.manual_seed(seed_for(task.seed, "summary"))
    taught_width = 0 if task.target is None else task.target.shape[1]
    model = PretrainingModel(network, task.mask_id, taught_width).to(task.device)

    if params.compile:
        compiled = network.beit3.encoder if isinstance(network, BEiT3) else network
        compiled.compile(dynamic=True)
    distributed = DistributedDataParallel(model) if process.world() > 1 else model

    return Trainer(model, distributed, build_optimizer(model, params))


def _restore_state(trainer: Trainer, checkpoint: Checkpoint) -> TrainState:
    saved = checkpoint.load()
    if saved is None:
        return TrainState()

    tensors, state = saved
    trainer.model.load_state_dict(tensors["weights"])
    restore_adam(trainer.optimizer, tensors["adam"])
    return TrainState(**state)


def _save_state(trainer: Trainer, checkpoint: Checkpoint, state: TrainState) -> None:
    weights = trainer.model.state_dict()
    checkpoint.save({"weights": weights, "adam": adam_state(trainer.optimizer)}, vars(state))


def build_optimizer(model: nn.Module, params: Pretrain) -> torch.optim.AdamW:
    """Return AdamW with a group of parameters for each learning rate factor and weight decay."""
    new_prefixes = NEW_IN_MINI if params.size == "mini" else PIECES
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_decayed = parameter.ndim >= 2 and not any(part in name for part in UNDECAYED)
        is_new = not params.init and name.startswith(new_prefixes)
        rate_factor = NEW_RATE_FACTOR if is_new else 1.0
        members.setdefault((rate_factor, is_decayed), []).append(parameter)

    groups = []
    for (rate_factor, is_decayed), parameters in members.items():
        decay = params.weight_decay if is_decayed else 0.0
        groups.append({"params": parameters, "weight_decay": decay, "rate_factor": rate_factor})
    return torch.optim.AdamW(groups, lr=params.lr, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=True)


@torch.no_grad()
def start_head(model: PretrainingModel, task: PretrainTask) -> None:
    """Initialise the teachers' head of `mini` by ridge regression on the untrained network."""
    if model.teacher is None or task.target is None:
        return
    order = np.random.default_rng(seed_for(task.seed, "head")).permutation(task.train)
    items = np.sort(order[:MAX_HEAD_ITEMS])
    summaries = encode_items(model.network, task, items)
    ridge = fit_ridge(summaries, np.asarray(task.target[items]))

    model.whitening.mean.copy_(torch.from_numpy(ridge.mean))
    model.teacher.weight.copy_(torch.from_numpy(ridge.map.T))
    model.teacher.bias.zero_()


def _plan_epoch(task: PretrainTask, epoch: int) -> list[np.ndarray]:
    """Cut the train items, in random order, into batches.

    UserError for batches that are too small for the processes and `accumulate`.
    """
    # not sorted by length, which would save padding: batches of similar texts made features worse
    rng = np.random.default_rng(seed_for(task.seed, "order", epoch))
    order = rng.permutation(task.train)
    size = task.params.batch_size
    batches = np.array_split(order, max(1, math.ceil(len(order) / size)))

    parts = process.world() * task.params.accumulate
    smallest = len(batches[-1])
    if smallest < parts:
        raise UserError(
            f"pretrain.batch_size {size} gives batches of {smallest} items, which cannot be cut "
            f"into {parts} parts ({process.world()} processes, "
            f"pretrain.accumulate {task.params.accumulate})"
        )
    return batches


def _take_step(
    trainer: Trainer, task: PretrainTask, items: np.ndarray, epoch: int, rate: float
) -> np.ndarray:
    """Take one step of the optimiser and return the loss and its terms, float64 [1 + 3].

    They are summed over all processes.
    """
    weight = torch.tensor([1.0, 1.0, task.params.distill], device=task.device)
    trainer.optimizer.zero_grad()
    terms = _accumulate_gradients(trainer, task, _local_parts(task, items, epoch), weight)

    local_losses = torch.cat([(weight @ terms)[None], terms]).double()
    losses = process.all_reduce(local_losses).cpu().numpy()
    if not np.isfinite(losses).all():
        raise UserError(f"epoch {epoch + 1}: the loss is {losses[0]}; lower pretrain.lr")

    nn.utils.clip_grad_norm_(trainer.model.parameters(), MAX_GRADIENT_NORM)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    trainer.optimizer.step()
    if trainer.model.teacher is not None and isinstance(trainer.model.whitening, RunningWhitening):
        trainer.model.whitening.update()
    return losses


def _local_parts(task: PretrainTask, items: np.ndarray, epoch: int) -> list[MaskedBatch]:
    """Return this process's share of a step, in parts that fit into memory."""
    seed = seed_for(task.seed, "epoch", epoch)
    lengths = task.corpus.lengths_of_items
    parts = []
    for accumulated in np.array_split(items, task.params.accumulate):
        for part in split_batch(accumulated, lengths[accumulated], process.world()):
            local_items = np.array_split(part, process.world())[process.rank()]
            parts.append(make_batch(task, local_items, task.rates, seed))
    return parts


def _accumulate_gradients(
    trainer: Trainer, task: PretrainTask, parts: list[MaskedBatch], weight: Tensor
) -> Tensor:
    """Add up the gradients of all parts; return the local share of each of TERMS, float32 [3]."""
    counts = process.all_reduce(torch.stack([part.counts() for part in parts]).sum(0))
    terms = torch.zeros_like(weight)
    for number, part in enumerate(parts, 1):
        with _delay_reduction(trainer.distributed, delayed=number < len(parts)):
            with autocast(task):
                losses = trainer.distributed(part, counts)
            # DDP averages gradients over processes, but the terms of parts have to be summed
            (process.world() * (weight @ losses)).backward()
        terms += losses.detach()
    return terms


def _delay_reduction(model: nn.Module, delayed: bool) -> AbstractContextManager[object]:
    """Return a context in which gradients are not yet reduced over processes."""
    if delayed and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def _record_measurement(
    trainer: Trainer, task: PretrainTask, state: TrainState, rate: float, draws: int
) -> None:
    """Append mean losses since the last measurement, and held-out figures, to the history."""
    previous_step = state.history[-1]["step"] if state.history else 0
    steps = state.step - previous_step
    entry: dict[str, Any] = {"step": state.step, "loss": round(state.sums[0] / steps, 6)}
    for term, total in zip(TERMS, state.sums[1:], strict=True):
        if term != "distill" or task.params.distill:
            entry[f"{term}_loss"] = round(total / steps, 6)
    entry["lr"] = rate

    cosine = measure_cosine(trainer.model, task)
    entry |= measure_masked(trainer.model.network, task, draws)
    for term in TASKS:
        key = f"{term}_held_out_loss"
        entry[key] = _of_first_process(entry[key], task.device)
    if cosine is not None:
        entry["cosine"] = cosine
    state.history.append(entry)
    state.sums = [0.0] * len(state.sums)


def _of_first_process(value: float | None, device: torch.device) -> float | None:
    """Return the figure of process 0, so that rounding never lets processes end at other steps."""
    if value is None or process.world() == 1:
        return value
    own = value if process.rank() == 0 else 0.0
    return float(process.all_reduce(torch.tensor(own, dtype=torch.float64, device=device)))
