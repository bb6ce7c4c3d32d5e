"""The same jobs in this process and on a cluster give the same tables, though a node dies."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.encode import engines
from pipeline.encode.engines import ENGINES
from pipeline.errors import UserError, installing


class Product:
    """A worker with a network: noise of the job's seed times a matrix, and where that was done."""

    def __init__(self, width: int, folder: Path) -> None:
        torch.manual_seed(width)
        self.network, self.folder = torch.nn.Linear(width, width), folder

    def __call__(self, job: dict[str, Any]) -> pa.Table:
        where = sys.modules["ray"].get_runtime_context().get_node_id() if job.get("wait_for") else "here"
        (self.folder / f"{job['seed']}-{os.getpid()}-{where}").touch()
        while job.get("wait_for") and not Path(job["wait_for"]).exists():
            time.sleep(0.05)
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


def test_local_keeps_the_order_and_makes_one_worker(tmp_path: Path) -> None:
    actual = list(engines.local(functools.partial(work, tmp_path), jobs(3, 1, 2)))
    assert [job["seed"] for job, _ in actual] == [3, 1, 2]
    assert [table["seed"][0].as_py() for _, table in actual] == [3, 1, 2]


CPUS = [torch.device("cpu"), torch.device("cpu")]


def test_every_device_has_a_worker_and_the_tables_are_as_with_one(tmp_path: Path) -> None:
    both, made, making = threading.Barrier(2), list[int](), threading.Lock()

    def make() -> engines.Worker:
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
    expected = list(engines.local(functools.partial(work, tmp_path), todo))
    actual = list(engines.local(make, todo, CPUS))
    assert [job for job, _ in actual] == todo
    assert all(a.equals(b) for (_, a), (_, b) in zip(actual, expected, strict=True))
    assert len(made) == 2


def test_what_fails_on_a_device_is_raised_and_what_waits_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job 13 is unlucky"):
        list(engines.local(functools.partial(work, tmp_path), jobs(1, 13, *range(20, 40)), CPUS))
    assert len(list(tmp_path.iterdir())) < 8
    begun = engines.local(functools.partial(work, tmp_path), jobs(*range(100, 140)), CPUS)
    next(begun)
    begun.close()
    assert len(list(tmp_path.glob("1[0-9][0-9]-*"))) <= 4


def test_one_device_or_one_job_needs_no_threads() -> None:
    def make() -> engines.Worker:
        return lambda _: pa.table({"thread": [threading.get_ident()]})

    for devices, todo in ((CPUS[:1], jobs(1, 2)), (CPUS, jobs(1))):
        tables = [table["thread"][0].as_py() for _, table in engines.local(make, todo, devices)]
        assert {*tables} == {threading.get_ident()}


def test_no_jobs_need_no_worker() -> None:
    def make() -> engines.Worker:
        raise AssertionError("made")

    assert list(engines.local(make, [])) == []


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=re.escape(installing("ray"))):
        list(ENGINES["ray"](functools.partial(work, Path()), jobs(1)))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node on this machine, of two CPUs as Ray counts them."""
    pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
    import ray
    from ray.cluster_utils import Cluster

    threads = torch.get_num_threads()
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    small = {"num_cpus": 2 * threads, "num_gpus": 0, "object_store_memory": 200 * 2**20}
    environment = pytest.MonkeyPatch()
    root = Path(__file__).parents[2]
    environment.setenv("PYTHONPATH", os.pathsep.join(map(str, (root, root / "tests"))))  # workers import this file
    cluster = Cluster(
        initialize_head=True, head_node_args={**small, "include_dashboard": False, "_system_config": quick}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    environment.undo()


@pytest.mark.slow
def test_a_killed_node_costs_time_alone(cluster: Any, tmp_path: Path) -> None:
    todo = jobs(*range(12))
    expected = {job["seed"]: table for job, table in engines.local(functools.partial(work, tmp_path), todo)}
    node = cluster.add_node(num_cpus=2 * torch.get_num_threads(), num_gpus=0, object_store_memory=200 * 2**20)
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    begun.mkdir()
    actual: dict[int, pa.Table] = {}
    waiting = [{**job, "wait_for": str(gate)} if job["seed"] >= 4 else job for job in todo]
    for job, table in engines.on_ray(functools.partial(work, begun), waiting):
        assert job["seed"] not in actual
        actual[job["seed"]] = table
        if len(actual) == 3:
            wait_until(lambda: any(path.name.endswith(node.node_id) for path in begun.iterdir()))
            cluster.remove_node(node, allow_graceful=False)  # kill -9
            gate.touch()
    assert actual.keys() == expected.keys()
    assert all(actual[seed].equals(table) for seed, table in expected.items())
    assert len(list(begun.iterdir())) > len(todo)  # what the dead node had begun was done again


@pytest.mark.slow
def test_what_a_worker_raises_arrives_as_it_was(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job 13 is unlucky"):
        list(engines.on_ray(functools.partial(work, tmp_path), jobs(13)))
