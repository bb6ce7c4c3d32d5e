"""Workers in actors of a Ray cluster; what a lost node was doing is done again, what others do goes on."""

import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from pipeline import code
from pipeline.engine.local import Make, Seats, Worker
from pipeline.errors import UserError, installing
from pipeline.versions import versions

ROOM = 60.0
"""seconds without room for any actor after which it is said"""
PATIENCE = 3600.0
"""seconds to wait for room: somebody's jobs may end, or nodes be started"""
LOSSES = 5  # of one job, each with the node or process that did it, after which the cluster counts as broken


class Ray:
    """An actor a seat.

    The cluster is the one that this process is connected to, else the one that RAY_ADDRESS names, else a new one on
    this machine. Every node needs this package with the same code, the same versions of the libraries, and the files
    that jobs name under the same paths. An actor takes a GPU if the cluster has any, else as many CPUs as this process
    has threads. It has as many threads, so that sums are added in the same order.

    Raises:
        UserError: Ray is not installed, a node has other code or libraries, or none has had room for PATIENCE seconds;
            and what a worker raises.
    """

    @contextmanager
    def opened(self, make: Make[Any, Any]) -> Iterator[Seats]:
        """Actors start when there are jobs for them."""
        import torch

        try:
            import ray
        except ImportError as e:
            raise UserError(f"engine 'ray' needs another package ({e}): {installing('ray')}") from None
        if not ray.is_initialized():
            ray.init(log_to_driver=False)  # it reads RAY_ADDRESS by itself
        threads, cluster = torch.get_num_threads(), ray.cluster_resources()
        gpus = int(cluster.get("GPU", 0))
        most = max(1, gpus or int(cluster.get("CPU", 1) // threads))
        place = ray.remote(num_cpus=0 if gpus else threads, num_gpus=min(gpus, 1), max_restarts=0)
        new = partial(place(_Actor).remote, make, threads, node_facts())
        crew = _Crew(ray, new, "with a GPU" if gpus else f"of {threads} thread{'s' * (threads > 1)}", most)
        with ThreadPoolExecutor(most) as pool:
            try:
                yield Seats(lambda job: pool.submit(crew.work, job), most)
            finally:
                crew.dismiss()


@dataclass
class _Crew:
    """Actors, of which idle ones take jobs; only those that Ray has placed are idle."""

    ray: Any
    new: Any
    """starts an actor"""
    room: str
    """that an actor needs, in words"""
    most: int
    idle: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    actors: list[Any] = field(default_factory=list)
    placed: set[Any] = field(default_factory=set)
    """of them, those that have a node"""
    warned: bool = False
    lock: Lock = field(default_factory=Lock)
    dismissed: bool = False

    def work(self, job: Any) -> Any:
        """Return the result of a job. A lost actor's successor is placed where and when the cluster has room."""
        with self.lock:
            if self.idle.empty() and len(self.actors) < self.most:
                self._start()
        for tried in range(1, LOSSES + 1):
            actor = self._next()
            if actor is None or self.dismissed:
                break
            try:
                result, error = self.ray.get(actor.work.remote(job))
            except self.ray.exceptions.RayTaskError:
                raise  # of the worker itself
            except self.ray.exceptions.RayError:  # the node is gone, or the process
                if tried == LOSSES:
                    raise
                with self.lock:
                    self.ray.kill(actor)
                    self.placed.discard(actor)
                    self._start()
            else:
                self.idle.put(actor)
                if error:
                    raise UserError(error)
                return result
        return None  # nobody waits for it any more

    def dismiss(self) -> None:
        """End all actors, and the threads that wait for one."""
        with self.lock:
            self.dismissed = True
            for actor in self.actors:
                self.ray.kill(actor)
        for _ in range(self.most):
            self.idle.put(None)

    def _start(self) -> None:
        if not self.dismissed:
            actor = self.new()
            self.actors.append(actor)
            actor.ready.remote().future().add_done_callback(lambda _: self._ready(actor))

    def _ready(self, actor: Any) -> None:
        self.placed.add(actor)
        self.idle.put(actor)

    def _next(self) -> Any:
        """Return the next idle actor, or None once all are dismissed; UserError if none has a node for too long."""
        since = time.monotonic()
        while True:
            with suppress(Empty):
                return self.idle.get(timeout=ROOM)
            if self.placed:  # they are at work
                since = time.monotonic()
                continue
            lack = f"no node of the Ray cluster has room for an actor {self.room}"
            if time.monotonic() - since > PATIENCE:
                raise UserError(f"{lack}; `ray status` says what there is, and OMP_NUM_THREADS sets the threads")
            with self.lock:
                if not self.warned:
                    print(f"{lack}; waiting for one; `ray status` says what there is", file=sys.stderr, flush=True)
                self.warned = True


class _Actor:
    """A worker as Ray has it."""

    def __init__(self, make: Make[Any, Any], threads: int, facts: dict[str, str]) -> None:
        self.make, self.threads, self.facts = make, threads, facts

    def ready(self) -> None:
        """Return once Ray has placed the actor."""

    def work(self, job: Any) -> tuple[Any, str | None]:
        """Return the result of a job, or a UserError as a value: Ray would wrap it, and print all wrappings."""
        try:
            return self.worker(job), None
        except UserError as e:
            return None, str(e)

    @cached_property
    def worker(self) -> Worker[Any, Any]:
        """The worker, made at the first job: an error then ends the run."""
        check_node(self.facts, node_facts())
        import torch

        if self.threads != torch.get_num_threads():
            torch.set_num_threads(self.threads)
        return self.make()


def node_facts() -> dict[str, str]:
    """Return what must be equal on all nodes: the code, and the versions of Python and the libraries."""
    return {"code": code.tree()[:12], **versions()}


def check_node(wanted: dict[str, str], here: dict[str, str]) -> None:
    """Raise UserError where code or libraries differ, which may give other bytes; it names what."""
    names = sorted(name for name in {**wanted, **here} if wanted.get(name) != here.get(name))
    if names:
        said = ", ".join(f"{name} {here.get(name, 'none')}, not {wanted.get(name, 'none')}" for name in names)
        raise UserError(f"a node of the Ray cluster ({platform.node()}) has {said}; install the same on all")
