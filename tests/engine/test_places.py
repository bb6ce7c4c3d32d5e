"""The same jobs in this process and on devices give the same tables."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline import engine
from pipeline.engine.local import Worker
from pipeline.errors import UserError


class Product:
    """A worker with a network: noise of the job's seed times a matrix."""

    def __init__(self, width: int, folder: Path) -> None:
        torch.manual_seed(width)
        self.network, self.folder = torch.nn.Linear(width, width), folder

    def __call__(self, job: dict[str, Any]) -> pa.Table:
        (self.folder / f"{job['seed']}-").touch()
        if job["seed"] == 13:
            raise UserError("job 13 is unlucky")
        noise = torch.randn(8, 32, generator=torch.Generator().manual_seed(job["seed"]))
        with torch.inference_mode():
            vectors = self.network(noise).numpy()
        return pa.table({"seed": np.full(8, job["seed"]), "vector": list(vectors)})


def work(folder: Path) -> Product:
    return Product(32, folder)


def jobs(*seeds: int) -> list[dict[str, Any]]:
    return [{"seed": seed} for seed in seeds]


CPUS = engine.Devices([torch.device("cpu"), torch.device("cpu")])


def test_every_device_has_a_worker_and_the_tables_are_as_with_one(tmp_path: Path) -> None:
    both, made, making = threading.Barrier(2), list[int](), threading.Lock()

    def make() -> Worker[Any, pa.Table]:
        assert making.acquire(blocking=False), "a worker that draws weights sets torch's seed: one is made at a time"
        time.sleep(0.2)
        worker, first = work(tmp_path), [True]
        made.append(threading.get_ident())
        making.release()

        def job(given: dict[str, Any]) -> pa.Table:
            if first:  # waits for the other device: the two work at a time
                both.wait(60)
                first.clear()
            return worker(given)

        return job

    todo = jobs(*range(9))
    expected = list(engine.map(functools.partial(work, tmp_path), todo))
    actual = list(engine.map(make, todo, CPUS, ahead=1))
    assert [job for job, _ in actual] == todo
    assert [table["seed"][0].as_py() for _, table in actual] == [*range(9)]
    assert all(a.equals(b) for (_, a), (_, b) in zip(actual, expected, strict=True))
    assert len(made) == 2


def test_what_fails_on_a_device_is_raised_and_what_waits_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="13"):
        list(engine.map(functools.partial(work, tmp_path), jobs(1, 13, *range(20, 40)), CPUS, ahead=1))
    assert len(list(tmp_path.iterdir())) < 8
    begun = engine.map(functools.partial(work, tmp_path), jobs(*range(100, 140)), CPUS, ahead=1)
    next(begun)
    begun.close()
    assert len(list(tmp_path.glob("1[0-9][0-9]-*"))) <= 4


def test_threads_share_a_worker_and_keep_the_order() -> None:
    both = threading.Barrier(2)

    def square(n: int) -> int:
        both.wait(60)  # for the other thread: two work at a time
        time.sleep(0.1 * (n % 2))
        return n * n

    found = engine.map(lambda: square, range(6), engine.Threads(2), ahead=1)
    assert list(found) == [(n, n * n) for n in range(6)]
    as_they_end = engine.map(lambda: square, [1, 0], engine.Threads(2), ordered=False)
    assert list(as_they_end) == [(0, 0), (1, 1)]
