"""Jobs on a Ray cluster: each has its result, lost nodes are retried, and errors are one line."""

import functools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from nodes import one_worker, ray_cluster

from alignrec.pipeline.io.errors import UserError, installing
from alignrec.pipeline.runtime import cluster as of_ray
from alignrec.pipeline.runtime.cluster import run_jobs


def read(job: dict[str, Any]) -> pa.Table:
    generator = torch.Generator().manual_seed(job["seed"])
    return pa.table({"x": list(torch.randn(8, 32, generator=generator).numpy()), "reader": [os.getpid()] * 8})


def work(folder: Path) -> Callable[[dict[str, Any], pa.Table], pa.Table]:
    """Return a worker that records where it ran, and waits for a file if the job names one."""
    torch.manual_seed(32)
    network = torch.nn.Linear(32, 32)

    def done(job: dict[str, Any], table: pa.Table) -> pa.Table:
        where = sys.modules["ray"].get_runtime_context().get_node_id() if "ray" in sys.modules else "here"
        (folder / f"{job['seed']}-{os.getpid()}-{where}").touch()
        while job.get("wait_for") and not Path(job["wait_for"]).exists():
            time.sleep(0.05)
        if "fault" in job:
            raise UserError(job["fault"])
        time.sleep(job.get("seconds", 0))
        with torch.inference_mode():
            vectors = network(torch.tensor(table["x"].to_pylist())).numpy()
        threads = [torch.get_num_threads()] * 8
        return pa.table({"seed": [job["seed"]] * 8, "vector": list(vectors), "threads": threads})

    return done


def jobs(*seeds: int, **more: object) -> list[dict[str, Any]]:
    return [{"seed": seed, **more} for seed in seeds]


def refuse(message: str) -> None:
    raise AssertionError(message)


def ran(folder: Path, todo: list[dict[str, Any]]) -> list[tuple[dict[str, Any], pa.Table]]:
    done = run_jobs(read, functools.partial(work, folder), todo, refuse)
    return sorted(done, key=lambda pair: todo.index(pair[0]))


def test_without_ray_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=re.escape(installing("ray"))):
        ran(tmp_path, jobs(1))
    assert ran(tmp_path, []) == []


def test_a_node_with_other_code_or_libraries_is_refused() -> None:
    here = of_ray.facts(["timm", "not-installed"])
    assert {"code", "python", "torch", "pyarrow", "numpy", "timm"} <= here.keys()
    of_ray.check_node(here, of_ray.facts(["timm"]))
    other = here | {"code": "edited", "pyarrow": "25.0.0"}
    del other["torch"]
    with pytest.raises(UserError, match=r"edited.*pyarrow 25\.0\.0.*torch none"):
        of_ray.check_node(here, other)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(begun: Path) -> bool:
    """Return whether the process that started a job is alive."""
    return Path("/proc", begun.name.split("-")[1]).exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.mark.slow
def test_jobs_come_back_from_as_many_threads(cluster: Any, tmp_path: Path) -> None:
    todo = [*jobs(5, seconds=1), *jobs(3, 4, 1)]
    done = ran(tmp_path, todo)
    assert [job for job, _ in done] == todo
    assert [table["seed"][0].as_py() for _, table in done] == [5, 3, 4, 1]
    assert {table["threads"][0].as_py() for _, table in done} == {torch.get_num_threads()}
    here = work(tmp_path)
    assert all(table.equals(here(job, read(job))) for job, table in done)


@pytest.mark.slow
def test_an_error_on_a_node_is_one_here(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no space left there$"):
        ran(tmp_path, jobs(1, fault="no space left there"))


@pytest.mark.slow
def test_a_killed_node_costs_time_alone(cluster: Any, tmp_path: Path) -> None:
    here = work(tmp_path)
    expected = [here(job, read(job)) for job in jobs(*range(12))]
    node = cluster.add_node(**one_worker())
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    begun.mkdir()

    def kill() -> None:
        wait_until(lambda: any(begun.glob(f"*-{node.node_id}")))
        cluster.remove_node(node, allow_graceful=False)  # kill -9
        wait_until(lambda: not any(map(alive, begun.glob(f"*-{node.node_id}"))))
        gate.touch()

    killer = threading.Thread(target=kill)
    killer.start()
    actual = ran(begun, jobs(*range(12), wait_for=str(gate)))
    killer.join()
    assert [table for _, table in actual] == expected
    assert len(list(begun.iterdir())) > 12  # what the dead node had begun was done again
