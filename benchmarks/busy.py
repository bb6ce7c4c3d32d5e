"""Training with two threads on two cores next to other programs: threads that wait spin, spin for a while, or sleep.

Each way of waiting has a process of its own, since OpenMP reads it when torch loads. Results must be equal bit for bit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import Measurement, _turns, train
from benchmarks._turns import Turn, Way, timed
from pipeline.beit3.config import SIZES, Config
from pipeline.beit3.network import BEiT3
from pipeline.ops.checkpoint import Checkpoint
from pipeline.pretrain.batches import Task
from pipeline.pretrain.corpus import Corpus
from pipeline.pretrain.loop import fit
from pipeline.pretrain.params import Pretrain

THREADS = 2
WAITS = {
    "spin": {"GOMP_SPINCOUNT": "300000"},
    "spin briefly": {"GOMP_SPINCOUNT": "10000"},
    "sleep": {"GOMP_SPINCOUNT": "0"},
}
"""how a thread waits for the others: 300,000 turns of a loop, then it sleeps, which is OpenMP's default; fewer; none,
which is ours"""
BESIDE = (0, 1, 2)  # other processes, each of which keeps a core busy
STEPS = {"pretrain": 6, "train": 6}
VOCAB, CODES, TOKENS = 4000, 128, 24
SHAPE = SIZES["small"]


def run() -> Measurement:
    """Take the same steps in every way, next to nothing, one and two busy processes."""
    with ExitStack() as stack:
        stack.enter_context(_cores(THREADS))
        processes = {wait: stack.enter_context(_turns.process(variables)) for wait, variables in WAITS.items()}
        turns = {
            _name(work, wait, n): partial(_beside, n, partial(processes[wait], _steps, work))
            for work in STEPS
            for n in BESIDE
            for wait in WAITS
        }
        for process in processes.values():
            for work in STEPS:
                process(_steps, work)
        ways = _turns.take(turns, work={name: STEPS[name.split(",")[0]] for name in turns})
    _check(ways)
    alone = ways[_name("train", "sleep", 0)]
    share = (THREADS + 1) / THREADS
    return Measurement(
        ways=ways,
        ours=_name("train", "sleep", 1),
        reference=_name("train", "spin", 1),
        unit="s/step",
        higher_is_better=False,
        limit=share * alone.wall.median / alone.work,
        limit_is=f"a step alone, times {share:g}: {THREADS} threads and one process share {THREADS} cores",
        what=f"steps of `pretrain` (small, {Pretrain(size='small').batch_size} items) and of AlignRec (`train`, Baby's "
        f"size) with {THREADS} threads on {THREADS} cores, next to processes that keep a core busy each",
        details={"times_a_step_alone": {name: _times_alone(ways, name) for name in ways}, "threads": THREADS},
    )


def _name(work: str, wait: str, beside: int) -> str:
    return f"{work}, {wait}, beside {beside}"


def _times_alone(ways: dict[str, Way[Any]], name: str) -> float:
    """Return a step's wall seconds over those of the same work by OpenMP's defaults on an idle machine."""
    return ways[name].wall.median / ways[_name(name.split(",")[0], "spin", 0)].wall.median


def _check(ways: dict[str, Way[list[float]]]) -> None:
    for work in STEPS:
        results = {tuple(turn.result) for name, way in ways.items() if name.startswith(work) for turn in way.turns}
        if len(results) > 1:
            raise RuntimeError(f"{work}: the way of waiting changes the result")


@contextmanager
def _cores(n: int) -> Iterator[None]:
    """Keep this process, and those that it starts, on the first n cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _beside(n: int, turn: Callable[[], Turn[list[float]]]) -> Turn[list[float]]:
    """Take a turn next to n processes that never wait."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        return turn()
    finally:
        for other in others:
            other.kill()
            other.wait()


def _steps(work: str) -> Turn[list[float]]:
    torch.set_num_threads(THREADS)
    return train.first_steps(STEPS[work]) if work == "train" else _pretrain(STEPS[work])


def _pretrain(n: int) -> Turn[list[float]]:
    """Take n steps of pre-training; return the sum of each trained parameter."""
    network = BEiT3(_shape())
    network.load_state_dict(_state())
    turn = timed(fit, network, _task(n), Checkpoint(Path("never written"), n + 1), int)
    return turn.giving([float(p.detach().double().sum()) for p in network.parameters()])


def _shape() -> Config:
    return Config(**{**vars(SHAPE), "vocab": VOCAB, "codes": CODES, "mlm": True})


@cache
def _state() -> dict[str, torch.Tensor]:
    """Return the weights that every turn starts from."""
    torch.manual_seed(0)
    return BEiT3(_shape()).state_dict()


@cache
def _task(steps: int) -> Task:
    """Return items with noise for images and texts: what they hold does not change how long a step takes."""
    params = Pretrain(size="small", steps=steps, threads=THREADS, held_out=0)
    rng, n = np.random.default_rng(0), steps * params.batch_size
    texts = [np.array([0, *rng.integers(4, VOCAB - 1, TOKENS), 2]) for _ in range(n)]
    pixels = rng.integers(0, 256, (n, SHAPE.image, SHAPE.image, 3), np.uint8)
    codes = rng.integers(0, CODES, (n, SHAPE.patches)).astype(np.int32)
    return Task(Corpus(texts, np.arange(n), pixels), codes, VOCAB - 1, params, 0, torch.device("cpu"))
