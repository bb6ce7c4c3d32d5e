"""Train AlignRec in a script that loads torch before alignrec, on an idle machine and next to three busy processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from alignrec.pipeline.runtime.process import POLICY, SPINS
from benchmarks import Measurement, _turns, train
from benchmarks._plain_alignrec import steps
from benchmarks._turns import Turn, timed

BUSY_PROCESSES = 3
STEPS = 10
SCRIPT = "import torch; from benchmarks import load; load.print_turn()"
SPIN = "while True: pass"


def run() -> Measurement:
    """Time the steps of a user's own loop, whose waiting threads no command has set."""
    ways = _turns.take(
        {"alone": partial(_train, 0), "busy": partial(_train, BUSY_PROCESSES)}, work=STEPS
    )
    processors = len(os.sched_getaffinity(0))
    fair_share = 1 + BUSY_PROCESSES / processors
    return Measurement(
        ways=ways,
        ours="busy",
        reference="alone",
        unit="s/step",
        higher_is_better=False,
        limit=fair_share * ways["alone"].wall.median / STEPS,
        limit_is="a fair share of the processors, if each thread has as much time as each busy process",
        what=f"AlignRec at Baby's size on {processors} processors in a script that loads torch first; "
        f"busy: next to {BUSY_PROCESSES} processes that compute",
        details={"busy_processes": BUSY_PROCESSES, "processors": processors},
    )


def print_turn() -> None:
    """Print wall and CPU seconds of some steps, as JSON."""
    model, loss = train._model("exact")
    optimiser = train._optimiser(model)
    batches = train._batches()

    def sum_terms(batch: train.Batch) -> torch.Tensor:
        return torch.stack(list(loss(batch).values())).sum()

    steps(optimiser, batches[:2], sum_terms)
    turn = timed(steps, optimiser, batches[:STEPS], sum_terms)
    print(json.dumps([turn.wall, turn.cpu]))


def _train(busy_processes: int) -> Turn[None]:
    environment = {name: value for name, value in os.environ.items() if name not in (POLICY, SPINS)}
    with _busy(busy_processes):
        printed = subprocess.check_output(
            [sys.executable, "-c", SCRIPT], env=environment, text=True
        )
    wall, cpu = json.loads(printed)
    return Turn(wall, cpu, None)


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
