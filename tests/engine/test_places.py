"""The same jobs in this process, on devices and on a cluster give the same tables, though a node dies."""

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

from pipeline import engine
from pipeline.engine import cluster as of_ray
from pipeline.engine.local import Worker
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
    actual = list(engine.map(functools.partial(work, tmp_path), jobs(3, 1, 2)))
    assert [job["seed"] for job, _ in actual] == [3, 1, 2]
    assert [table["seed"][0].as_py() for _, table in actual] == [3, 1, 2]


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
    assert all(a.equals(b) for (_, a), (_, b) in zip(actual, expected, strict=True))
    assert len(made) == 2


def test_what_fails_on_a_device_is_raised_and_what_waits_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job 13 is unlucky"):
        list(engine.map(functools.partial(work, tmp_path), jobs(1, 13, *range(20, 40)), CPUS, ahead=1))
    assert len(list(tmp_path.iterdir())) < 8
    begun = engine.map(functools.partial(work, tmp_path), jobs(*range(100, 140)), CPUS, ahead=1)
    next(begun)
    begun.close()
    assert len(list(tmp_path.glob("1[0-9][0-9]-*"))) <= 4


def test_no_jobs_need_no_worker() -> None:
    def make() -> Worker[Any, pa.Table]:
        raise AssertionError("made")

    for on in (None, CPUS, engine.Threads(), engine.Processes(2), engine.Ray()):
        assert list(engine.map(make, [], on)) == []


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


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=re.escape(installing("ray"))):
        list(engine.map(functools.partial(work, Path()), jobs(1), engine.Ray()))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(begun: Path) -> bool:
    """Return whether the process that began a job runs."""
    return Path("/proc", begun.name.split("-")[1]).exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node on this machine, of two CPUs as Ray counts them."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
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
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    environment.undo()


@pytest.mark.slow
def test_a_killed_node_costs_time_alone(cluster: Any, tmp_path: Path) -> None:
    todo = jobs(*range(12))
    expected = {job["seed"]: table for job, table in engine.map(functools.partial(work, tmp_path), todo)}
    node = cluster.add_node(num_cpus=2 * torch.get_num_threads(), num_gpus=0, object_store_memory=200 * 2**20)
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    begun.mkdir()
    actual: dict[int, pa.Table] = {}
    waiting = [{**job, "wait_for": str(gate)} if job["seed"] >= 4 else job for job in todo]
    for job, table in engine.map(functools.partial(work, begun), waiting, engine.Ray(), ordered=False, ahead=4):
        assert job["seed"] not in actual
        actual[job["seed"]] = table
        if len(actual) == 3:
            wait_until(lambda: any(path.name.endswith(node.node_id) for path in begun.iterdir()))
            cluster.remove_node(node, allow_graceful=False)  # kill -9
            wait_until(lambda: not any(map(alive, begun.glob(f"*-{node.node_id}"))))
            gate.touch()
    assert actual.keys() == expected.keys()
    assert all(actual[seed].equals(table) for seed, table in expected.items())
    assert len(list(begun.iterdir())) > len(todo)  # what the dead node had begun was done again


@pytest.mark.slow
def test_what_a_worker_raises_arrives_as_it_was(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job 13 is unlucky"):
        list(engine.map(functools.partial(work, tmp_path), jobs(13), engine.Ray()))


def test_a_node_with_other_code_or_libraries_is_refused() -> None:
    here = of_ray.node_facts()
    assert {"code", "python", "torch", "pyarrow", "numpy"} <= here.keys()
    of_ray.check_node(here, of_ray.node_facts())
    other = here | {"code": "edited", "pyarrow": "25.0.0"}
    del other["torch"]
    said = (
        f"has code edited, not {here['code']}, pyarrow 25.0.0, not {here['pyarrow']}, "
        f"torch none, not {here['torch']}; install the same on all"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        of_ray.check_node(here, other)


@pytest.mark.slow
def test_a_cluster_with_other_libraries_is_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = of_ray.node_facts()
    monkeypatch.setattr(of_ray, "node_facts", lambda: facts | {"pyarrow": "25.0.0"})
    with pytest.raises(UserError, match=rf"has pyarrow {re.escape(facts['pyarrow'])}, not 25\.0\.0; install"):
        list(engine.map(functools.partial(work, tmp_path), jobs(1), engine.Ray()))


@pytest.mark.slow
def test_what_no_node_has_room_for_is_said_and_given_up(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(of_ray, "ROOM", 0.5)
    monkeypatch.setattr(of_ray, "PATIENCE", 2.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    lack = "no node of the Ray cluster has room for an actor of 1000 threads; "
    with pytest.raises(UserError, match=f"{lack}`ray status` says what there is, and OMP_NUM_THREADS sets"):
        list(engine.map(functools.partial(work, tmp_path), jobs(1, 2), engine.Ray()))
    assert capfd.readouterr().err.count(f"{lack}waiting for one") == 1


@pytest.mark.slow
def test_a_worker_that_works_for_long_is_waited_for(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_ray, "ROOM", 0.2)
    monkeypatch.setattr(of_ray, "PATIENCE", 5.0)
    gate = tmp_path / "gate"
    threading.Timer(10, gate.touch).start()
    todo = [{"seed": seed, "wait_for": str(gate)} for seed in range(4)]
    assert len(list(engine.map(functools.partial(work, tmp_path), todo, engine.Ray(), ahead=2))) == 4


@pytest.mark.slow
def test_a_node_with_a_gpu_takes_a_worker_whatever_its_cpus(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=200 * 2**20)
    monkeypatch.setattr(of_ray, "ROOM", 1.0)
    monkeypatch.setattr(of_ray, "PATIENCE", 30.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    try:
        list(engine.map(functools.partial(work, tmp_path), jobs(1), engine.Ray()))
    finally:
        cluster.remove_node(node)


class Deadly:
    def __call__(self, job: Any) -> None:
        os._exit(1)


@pytest.mark.slow
def test_a_job_that_ends_every_process_is_given_up(cluster: Any) -> None:
    import ray

    with pytest.raises(ray.exceptions.RayError):
        list(engine.map(Deadly, jobs(1), engine.Ray()))
