"""MIM and MLM in steps that are equal to those of stage `pretrain`, next to other losses."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import prepare
from alignrec.pipeline.beit3.corpus import PretrainTask, make_batch, split_batch
from alignrec.pipeline.beit3.losses import PretrainingModel
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.stopping import learning_rate, plan_ending
from alignrec.pipeline.beit3.training import MAX_GRADIENT_NORM, build_optimizer
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for


def read_masked_task(layout: Layout, params: Pretrain) -> PretrainTask:
    """Return what stage `pretrain` trained on, without teachers."""
    seed = seed_for("pretrain", layout.dataset, params.seed)
    device = pick_device(mps=False)
    texts = io.Texts(layout.items)
    _, task, _ = prepare.network_and_task(layout, texts, params, seed, _refuse, None, device)
    shutil.rmtree(layout.encoder_scratch)  # its files stay open as memory maps
    return task


def _refuse(address: str) -> Path:
    raise UserError(f"{address}: pre-trained parts are not supported here; leave them out")


class MaskedModelling:
    """The next batch's MIM and MLM, and the optimiser of stage `pretrain`."""

    def __init__(self, network: BEiT3, task: PretrainTask, losses: bool = True) -> None:
        """Take `task.params.steps` steps; without `losses`, on the gradients of others only."""
        self.task = task
        self.losses = losses
        self.steps_taken = 0
        self.model = PretrainingModel(network, task.mask_id)
        self.optimizer = build_optimizer(self.model, task.params)
        self._ending = plan_ending((), task.params.steps, patience=0)
        self._batches: list[np.ndarray] = []

    def terms(self) -> dict[str, Tensor]:
        """Return the terms of the next batch, each a mean over its masked positions."""
        if not self.losses or self.steps_taken >= self.task.params.steps:
            return {}

        epoch, number = divmod(self.steps_taken, self._steps_per_epoch)
        if number == 0:
            self._batches = self._plan_epoch(epoch)
        items = self._batches[number]
        seed = seed_for(self.task.seed, "epoch", epoch)
        lengths = self.task.corpus.lengths_of_items[items]
        parts = [
            make_batch(self.task, part, self.task.rates, seed)
            for part in split_batch(items, lengths)
        ]
        counts = torch.stack([part.counts() for part in parts]).sum(0)
        totals = torch.stack([self.model(part, counts) for part in parts]).sum(0)
        return {"mim": totals[0], "mlm": totals[1]}

    def step(self) -> None:
        """Follow the gradients of the network at the learning rate of the step."""
        rate = learning_rate(self.steps_taken, self._ending, self.task.params.lr)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_taken += 1

    @property
    def _steps_per_epoch(self) -> int:
        return -(-len(self.task.train) // self.task.params.batch_size)

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed_for(self.task.seed, "order", epoch))
        return np.array_split(rng.permutation(self.task.train), self._steps_per_epoch)
