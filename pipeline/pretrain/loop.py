"""The pre-training loop: steps over one or more processes, exact checkpoints at any step.

Letters: I items, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from pipeline import parallel
from pipeline.beit3.network import BEiT3
from pipeline.errors import UserError
from pipeline.ops.checkpoint import Checkpoint, adam_state, named, part_of, restore_adam
from pipeline.pretrain import corpus, optim
from pipeline.pretrain.batches import Task, batch
from pipeline.pretrain.held_out import autocast, measure
from pipeline.pretrain.losses import TERMS, PretrainingModel, weights
from pipeline.seeds import seed_for


@dataclass(frozen=True)
class Training:
    """State that a step changes."""

    model: PretrainingModel
    distributed: nn.Module
    """the model, or its DistributedDataParallel wrapper"""
    optimizer: torch.optim.AdamW
    average: AveragedModel | None

    @property
    def result(self) -> BEiT3:
        """The network that is measured and written: the average of the weights, where there is one."""
        return self.model.network if self.average is None else cast(BEiT3, self.average.module)


def fit(network: BEiT3, task: Task, checkpoint: Checkpoint, done: Callable[[int], object]) -> list[dict[str, Any]]:
    """Train in place, from the checkpoint if there is one.

    Args:
        network: on the task's device.
        task: data, parameters, seed.
        checkpoint: written by rank 0 every few steps; the caller deletes it when the result is safe.
        done: called after each step with the number of items.

    Returns:
        history, an object an epoch: epoch; means over its steps of loss and of `<term>_loss` of each term that is on;
        lr; what `measure` returns of the held-out items.

    Raises:
        UserError: the loss is not finite.
        UserError: batches too small for the number of processes and parts.
    """
    training = _begin(network, task)
    per_epoch = math.ceil(len(task.train) / task.params.batch_size)
    steps = task.params.epochs * per_epoch
    begin, history, sums = 0, [], np.zeros(1 + len(TERMS))
    if (saved := checkpoint.load()) is not None:
        tensors, state = saved
        _restore(training, tensors)
        begin, history, sums = state["step"], state["history"], np.array(state["sums"])
    for step in range(begin, steps):
        epoch, place = divmod(step, per_epoch)
        if step == begin or place == 0:
            plan = _plan(task, epoch)
        if step == begin:
            done(epoch * len(task.train) + sum(map(len, plan[:place])))
        rate = optim.learning_rate(step, steps, task.params)
        sums = (sums if place else np.zeros_like(sums)) + _step(training, task, plan[place], epoch, rate)
        done(len(plan[place]))
        if place == per_epoch - 1:
            means = _named(task, sums / per_epoch)
            history.append({"epoch": epoch + 1, **means, "lr": rate, **measure(training.result, task)})
        if (step + 1) % checkpoint.every == 0 and step + 1 < steps and parallel.rank() == 0:
            checkpoint.save(_state(training), {"step": step + 1, "history": history, "sums": sums.tolist()})
    network.load_state_dict(training.result.state_dict())
    return history


def _begin(network: BEiT3, task: Task) -> Training:
    params = task.params
    torch.set_num_threads(params.threads)
    torch.manual_seed(seed_for(task.seed, "summary"))
    idf = torch.from_numpy(task.corpus.idf(network.config.vocab))
    widths = [target.vectors.shape[1] for target in task.targets]
    model = PretrainingModel(network, params, task.mask_id, idf, widths).to(task.device)
    average = optim.average(network, params.ema)
    if params.compile:
        network.beit3.encoder.compile(dynamic=True)
    distributed = DistributedDataParallel(model) if parallel.world() > 1 else model
    return Training(model, distributed, optim.adamw(model, network.config.layers, params), average)


def _plan(task: Task, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch."""
    rng = np.random.default_rng(seed_for(task.seed, "order", epoch))
    order = corpus.shuffled(task.train, rng, task.similar, task.params.hard_negatives)
    plan = corpus.batches(order, task.params.batch_size)
    parts = parallel.world() * task.params.accumulate
    if plan and len(plan[-1]) < parts:
        raise UserError(
            f"pretrain.batch_size {task.params.batch_size} gives batches of {len(plan[-1])} items, which cannot be cut "
            f"into {parts} parts ({parallel.world()} processes, pretrain.accumulate {task.params.accumulate})"
        )
    return plan


def _step(training: Training, task: Task, items: np.ndarray, epoch: int, rate: float) -> np.ndarray:
    """Take one step of the optimiser and return the loss and its terms, float64 [1 + 7], equal in all processes."""
    params, model = task.params, training.distributed
    seed = seed_for(task.seed, "epoch", epoch)
    own = np.array_split(items, parallel.world())[parallel.rank()]
    parts = [batch(task, part, task.rates, seed, training=True) for part in np.array_split(own, params.accumulate)]
    counts = parallel.all_reduce(torch.stack([part.counts() for part in parts]).sum(0))
    weight = torch.tensor(weights(params), device=task.device)
    terms = torch.zeros_like(weight)
    training.optimizer.zero_grad()
    for number, part in enumerate(parts, 1):
        with _unsynchronised(model) if number < len(parts) else nullcontext():
            with autocast(task):
                losses = model(part, counts)
            # DDP averages the gradients of its processes; the terms of parts are to be summed
            (parallel.world() * (weight @ losses)).backward()
        terms += losses.detach()
    values = parallel.all_reduce(torch.cat([(weight @ terms)[None], terms]).double()).cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"epoch {epoch + 1}: the loss is {values[0]}; lower pretrain.lr")
    nn.utils.clip_grad_norm_(training.model.parameters(), params.clip)
    optim.set_rate(training.optimizer, rate)
    training.optimizer.step()
    if training.model.whitening is not None:
        training.model.whitening.update()
    if training.average is not None:
        training.average.update_parameters(training.model.network)
    return values


def _unsynchronised(model: nn.Module) -> AbstractContextManager[None]:
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _named(task: Task, means: np.ndarray) -> dict[str, float]:
    on = [True, *(weight > 0 for weight in weights(task.params))]
    names = ["loss", *(f"{term}_loss" for term in TERMS)]
    return {name: round(float(mean), 6) for name, mean, used in zip(names, means, on, strict=True) if used}


def _state(training: Training) -> dict[str, Tensor]:
    """Return weights, AdamW's moments and step counts, and the average of the weights."""
    tensors = named("weights", training.model.state_dict()) | named("adam", adam_state(training.optimizer))
    return tensors | ({} if training.average is None else named("average", training.average.state_dict()))


def _restore(training: Training, tensors: dict[str, Tensor]) -> None:
    training.model.load_state_dict(part_of(tensors, "weights"))
    restore_adam(training.optimizer, part_of(tensors, "adam"))
    if training.average is not None:
        training.average.load_state_dict(part_of(tensors, "average"))
