"""Places where workers do jobs, in this process: threads, or one per device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

Job = TypeVar("Job")
Result = TypeVar("Result")
Worker = Callable[[Job], Result]
Make = Callable[[], Worker[Job, Result]]  # makes a worker where it works, at its first job, as it may load a network


class Seats(NamedTuple):
    """An open place."""

    submit: Callable[[Any], Future[Any]]  # begins a job; one more than there are seats waits
    number: int  # jobs that are done at a time


class Place(Protocol):
    """Where jobs are done."""

    def opened(self, make: Make[Any, Any]) -> AbstractContextManager[Seats]:
        """Open the place; it closes when the jobs that have begun are done, or at once if those can be ended."""


CORES = min(os.cpu_count() or 1, 8)  # threads at a time; each holds a block, and more than a few wait for memory


@dataclass(frozen=True)
class Threads:
    """One worker shared by several threads."""

    number: int = CORES

    @contextmanager
    def opened(self, make: Make[Any, Any]) -> Iterator[Seats]:
        worker = make()
        with ThreadPoolExecutor(self.number) as pool:
            yield Seats(lambda job: pool.submit(worker, job), self.number)


@dataclass(frozen=True)
class Devices:
    """A worker and a thread for each of torch's devices; an idle one takes the next job."""

    devices: Sequence[torch.device]

    @contextmanager
    def opened(self, make: Make[Any, Any]) -> Iterator[Seats]:
        """Workers are made one at a time, each on its device: one that draws weights sets torch's seed."""
        from pipeline.ops.device import current

        idle: SimpleQueue[tuple[torch.device, Make[Any, Any]]] = SimpleQueue()
        making = Lock()
        for device in self.devices:
            idle.put((device, cache(make)))

        def work(job: Any) -> Any:
            device, made = idle.get()  # there are as many threads as devices
            try:
                with current(device):
                    with making:
                        worker: Worker[Any, Any] = made()
                    return worker(job)
            finally:
                idle.put((device, made))

        with ThreadPoolExecutor(len(self.devices)) as pool:
            yield Seats(lambda job: pool.submit(work, job), len(self.devices))
