"""Run jobs on the nodes of a Ray cluster, by workers that keep what they load.

Inputs are read on this machine, and results come back to it, so nodes need this package but no
shared folder.
"""

from __future__ import annotations

import logging
import os
import platform
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.machine import installed_versions, machine_facts, versions

Job = TypeVar("Job")
Read = Callable[[Job], Any]  # reads the input of a job, on this machine
Work = Callable[[Job, Any], pa.Table]  # computes the result of a job from its input
ATTEMPTS = 10  # per job if workers are lost
MAX_SECONDS_TO_START = 3600  # wait for a worker, as nodes may still be starting
LOST = (
    f"a worker of the Ray cluster was lost {ATTEMPTS} times at one job, most likely as memory ran "
    "out; give nodes more, or lower `encode.batch_size`; `ray list workers` says why they ended"
)
MIXED = (
    "workers have several kinds of processor, which may round differently: {}. Rows may differ "
    "from those of one kind in their last digits; take nodes of one kind for equal bytes"
)


def run_jobs(
    read: Read[Job],
    make: Callable[[], Work[Job]],
    jobs: Sequence[Job],
    warn: Callable[[str], object],
    packages: Sequence[str] = (),
) -> Generator[tuple[Job, pa.Table], None, None]:
    """Yield each job with its result, as they end; `make` and jobs are pickled.

    Uses the connected cluster, RAY_ADDRESS, or a new local one, in this order. UserError if Ray is
    missing, a node has other code or other versions of `packages`, no worker fits, or a job fails.
    """
    if not jobs:
        return
    ray = _connect()
    needs = _find_needs(ray)
    worker = ray.remote(_Worker).options(**needs.options)
    start = partial(worker.remote, ray.put(make), needs.threads, facts(packages), packages)
    workers = _Workers(ray, start, needs.lack)
    try:
        # one more than there is room for makes a cluster that can grow do so
        for _ in range(min(len(jobs), needs.room + 1)):
            workers.start()
        yield from _give_out(workers, read, jobs, warn)
    finally:
        workers.end()


def _give_out(
    workers: _Workers, read: Read[Job], jobs: Sequence[Job], warn: Callable[[str], object]
) -> Generator[tuple[Job, pa.Table], None, None]:
    waiting = deque(range(len(jobs)))
    losses = Counter[int | None]()
    processors: set[str] = set()
    done = 0
    while done < len(jobs):
        while workers.idle and waiting:
            number = waiting.popleft()
            workers.give(number, jobs[number], read(jobs[number]))

        ended, result = workers.wait()
        if result is None:
            losses[ended] += 1
            if losses[ended] == ATTEMPTS:
                raise UserError(LOST)
            workers.start()
            if ended is not None:
                waiting.append(ended)
        elif ended is not None:
            done += 1
            yield jobs[ended], result
        else:
            if len(processors) == 1 and result not in processors:
                warn(MIXED.format("; ".join(sorted({*processors, result}))))
            processors.add(result)
            if waiting:
                workers.start()


class _Workers:
    """Workers on the nodes, and what each of them does."""

    def __init__(self, ray: Any, start: Callable[[], Any], lack: str) -> None:
        self.idle: list[Any] = []
        self._ray = ray
        self._start = start
        self._lack = lack  # error message if none starts
        # reference to a result -> its worker and the number of its job; None while it loads
        self._busy: dict[Any, tuple[Any, int | None]] = {}

    def start(self) -> None:
        worker = self._start()
        self._busy[worker.load.remote()] = worker, None

    def give(self, number: int, job: Any, content: Any) -> None:
        worker = self.idle.pop()
        self._busy[worker.run.remote(job, content)] = worker, number

    def wait(self) -> tuple[int | None, Any]:
        """Return the number of a job that ended and its result, None if its worker was lost.

        The number is None if the worker was loading; its result is then its processor.
        """
        ray = self._ray
        any_works = self.idle or any(number is not None for _, number in self._busy.values())
        seconds = None if any_works else MAX_SECONDS_TO_START
        ended, _ = ray.wait([*self._busy], timeout=seconds)
        if not ended:
            raise UserError(f"{self._lack}; `ray status` says what there is")

        worker, number = self._busy.pop(ended[0])
        errors = ray.exceptions
        try:
            result = ray.get(ended[0])
        except (errors.RayActorError, errors.OutOfMemoryError, errors.ObjectLostError):
            ray.kill(worker)
            return number, None
        except errors.RayTaskError as e:
            if isinstance(e.cause, UserError):
                raise UserError(str(e.cause)) from None
            raise
        self.idle.append(worker)
        return number, result

    def end(self) -> None:
        for worker in [*self.idle, *(worker for worker, _ in self._busy.values())]:
            self._ray.kill(worker)


def facts(packages: Sequence[str] = ()) -> dict[str, str]:
    """Facts that all nodes must share: code and versions."""
    source = {"code": code.source_sha256()[:12]}
    return source | versions() | installed_versions(packages)


def check_node(expected: dict[str, str], here: dict[str, str]) -> None:
    names = sorted(expected.keys() | here.keys())
    differences = [
        f"{name} {here.get(name, 'none')}, not {expected.get(name, 'none')}"
        for name in names
        if expected.get(name) != here.get(name)
    ]
    if differences:
        raise UserError(
            f"a node of the Ray cluster ({platform.node()}) has {', '.join(differences)}; "
            "install the same on all"
        )


def _connect() -> Any:
    try:
        import ray
    except ImportError as e:
        raise UserError(f"engine 'ray' needs another package ({e}): {installing('ray')}") from None

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "")
        if address.startswith("ray://"):
            raise UserError(
                f"RAY_ADDRESS is {address}; "
                "start this on a node of the cluster, and give its host:port"
            )
        # Ray logs each worker start as an error
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)  # reads RAY_ADDRESS
        except (ConnectionError, RuntimeError, ValueError) as e:
            place = f" at {address}" if address else ""
            raise UserError(f"the Ray cluster{place}: {one_line(e)}") from None
    return ray


class _Needs(NamedTuple):
    """What a worker takes of a node."""

    threads: int
    options: dict[str, int]  # resources, as arguments of Ray
    room: int  # workers that the nodes have resources for
    lack: str  # error message for clusters where it fits on no node


def _find_needs(ray: Any) -> _Needs:
    import torch

    # all workers use the same kind of processor, and as many threads as this process, so that all
    # rows round alike
    threads = torch.get_num_threads()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes):
        resource, amount, named = "GPU", 1, "a GPU"
        options = {"num_cpus": 0, "num_gpus": 1}
    else:
        resource, amount, named = "CPU", threads, f"{threads} threads"
        options = {"num_cpus": threads}

    lack = f"no node of the Ray cluster has room for a worker with {named}"
    room = sum(int(node["Resources"].get(resource, 0) // amount) for node in nodes)
    # nodes of KubeRay and `ray up` have this label: such clusters may scale up
    may_grow = any("ray.io/node-group" in node["Labels"] for node in nodes)
    if not room and not may_grow:
        raise UserError(
            f"{lack}; `ray status` says what there is, and OMP_NUM_THREADS sets the threads"
        )
    return _Needs(threads, options, room, lack)


class _Worker:
    """Ray actor that runs jobs on a node with the same code and packages."""

    def __init__(
        self,
        make: Callable[[], Work[Any]],
        threads: int,
        expected: dict[str, str],  # facts that this node must have
        packages: Sequence[str],
    ) -> None:
        self._make = make
        self._threads = threads
        self._expected = expected
        self._packages = packages

    def load(self) -> str:
        """Make the work, and return the node's processor."""
        import torch

        torch.set_num_threads(self._threads)
        check_node(self._expected, facts(self._packages))
        self._work = self._make()
        machine = machine_facts()
        return ", ".join(filter(None, [machine["cpu"], machine["gpu"]]))

    def run(self, job: Any, content: Any) -> pa.Table:
        return self._work(job, content)
