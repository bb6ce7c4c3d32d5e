"""Engines that run independent jobs: in this process, or on a Ray cluster. The results are the same.

A job is a small value, such as the rows of a shard. A worker is made once where it runs, because it may load a network,
and turns jobs into Arrow tables.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from threading import Lock
from typing import Any

import pyarrow as pa
import torch

from pipeline import code
from pipeline.errors import UserError, installing
from pipeline.ops.device import current

PASSES = 5  # in a row without one finished job, after which a cluster counts as broken
PAUSE = 3.0  # seconds for the cluster to notice lost nodes

Worker = Callable[[Any], pa.Table]
Make = Callable[[], Worker]
"""a module's function or a partial of one; pickled to where it runs"""


def local(make: Make, jobs: Sequence[Any], devices: Sequence[torch.device] = ()) -> Iterator[tuple[Any, pa.Table]]:
    """Yield each job with its table, in order, in this process.

    Args:
        make: makes a worker.
        jobs: each is done by one worker.
        devices: torch's, of which each has a worker and a thread of its own; with less than two, one worker does the
            jobs one after the other. At most one table more than there are devices waits.
    """
    if len(devices) > 1 and len(jobs) > 1:
        yield from _on_devices(make, jobs, devices)
    elif jobs:
        worker = make()
        for job in jobs:
            yield job, worker(job)


def _on_devices(make: Make, jobs: Sequence[Any], devices: Sequence[torch.device]) -> Iterator[tuple[Any, pa.Table]]:
    """Do as `local` on several devices; an idle one takes the next job."""
    idle: SimpleQueue[int] = SimpleQueue()
    for number in range(len(devices)):
        idle.put(number)
    workers: dict[int, Worker] = {}
    making = Lock()  # a worker that draws weights sets torch's seed

    def work(job: Any) -> pa.Table:
        number = idle.get()  # there are as many threads as devices
        try:
            with current(devices[number]):
                if number not in workers:
                    with making:
                        workers[number] = make()
                return workers[number](job)
        finally:
            idle.put(number)

    pool, pending = ThreadPoolExecutor(len(devices)), deque[tuple[Any, Future[pa.Table]]]()
    try:
        for job in jobs:
            pending.append((job, pool.submit(work, job)))
            if len(pending) > len(devices):
                first, table = pending.popleft()
                yield first, table.result()
        for first, table in pending:
            yield first, table.result()
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(make: Make, jobs: Sequence[Any]) -> Iterator[tuple[Any, pa.Table]]:
    """Yield each job with its table from an actor pool over a Ray cluster, in the order in which they finish.

    The cluster is the one that this process is connected to, else the one that RAY_ADDRESS names, else a new one on
    this machine. Every node needs this package with the same code, and the files that jobs name under the same paths.
    An actor takes a GPU if the cluster has any, and as many threads as this process has, so that sums are added in the
    same order. When a node dies, others repeat its unfinished jobs.

    Raises:
        UserError: Ray is not installed, or a node has other code; and what a worker raises.
    """
    ray = _ray()
    if jobs and not ray.is_initialized():
        ray.init(log_to_driver=False)  # it reads RAY_ADDRESS by itself
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # progress is the caller's to show
    left, failures = set(range(len(jobs))), 0
    while left:
        try:
            for number, table in _pass(ray, make, jobs, sorted(left)):
                left.remove(number)
                failures = 0
                yield jobs[number], table
        except ray.exceptions.RayTaskError:
            raise  # of the worker itself
        except ray.exceptions.RayError:  # a node is gone, and with it what ran there
            failures += 1
            if failures == PASSES:
                raise
            time.sleep(PAUSE)


def _pass(ray: Any, make: Make, jobs: Sequence[Any], left: list[int]) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables of the jobs with the numbers `left`, until all are done or an actor is lost.

    Actors are not restarted: their jobs would wait for a place that idle actors hold, at worst for ever.
    """
    threads, cluster = _threads(), ray.cluster_resources()
    gpus = 1 if cluster.get("GPU", 0) >= 1 else 0
    most = int(cluster["GPU"]) if gpus else int(cluster.get("CPU", 1) // threads)
    actors = max(1, min(most, len(left)))
    tables = ray.data.from_items([{"number": i} for i in left], override_num_blocks=len(left)).map_batches(
        _Actor,
        fn_constructor_args=(make, list(jobs), threads, code.fingerprint(_module(make))),
        batch_format="pyarrow",
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=threads,
        num_gpus=gpus,
        max_restarts=0,
    )
    for row in tables.iter_rows():
        if row["error"]:
            raise UserError(row["error"])
        with pa.ipc.open_stream(row["table"]) as stream:
            yield row["number"], stream.read_all()


ENGINES: dict[str, Callable[[Make, Sequence[Any]], Iterator[tuple[Any, pa.Table]]]] = {"local": local, "ray": on_ray}
"""name -> engine"""


class _Actor:
    """A worker as Ray Data calls it: numbers of jobs in, their tables as bytes out."""

    def __init__(self, make: Make, jobs: Sequence[Any], threads: int, fingerprint: str) -> None:
        self.make, self.jobs, self.threads, self.fingerprint = make, jobs, threads, fingerprint

    def __call__(self, batch: pa.Table) -> pa.Table:
        table, error = None, None
        try:
            table = _bytes(self.worker(self.jobs[batch["number"][0].as_py()]))
        except UserError as e:  # as a value: Ray would wrap it, and print the traces of all wrappings
            error = str(e)
        columns = {"table": pa.array([table], pa.large_binary()), "error": pa.array([error], pa.string())}
        return pa.table({"number": batch["number"], **columns})

    @functools.cached_property
    def worker(self) -> Worker:
        """The worker, made at the first job: an error then ends the run; in __init__ it would be tried for ever."""
        if code.fingerprint(_module(self.make)) != self.fingerprint:
            raise UserError("a node of the Ray cluster has other code than this machine; install the same on all")
        if self.threads != _threads():
            torch.set_num_threads(self.threads)
        return self.make()


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _ray() -> Any:
    """Import Ray with its data library."""
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as e:
        raise UserError(f"engine 'ray' needs another package ({e}): {installing('ray')}") from None
    return ray


def _module(make: Make) -> str:
    return (make.func if isinstance(make, functools.partial) else make).__module__


def _threads() -> int:
    return torch.get_num_threads()
