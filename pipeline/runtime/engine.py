"""Run independent jobs in this process, in threads or in processes, with equal results.

The module `cluster` runs them on Ray.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from typing import Any, TypeVar

from alignrec.pipeline.io.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
Worker = Callable[[Job], Result]
Submit = Callable[[Any], Future[Any]]  # starts a job in an open pool of workers
# worker factory, called in the worker's process, as it may load a network
Make = Callable[[], Worker[Job, Result]]


KILLED = (
    "one of {} worker processes was killed, most likely as memory ran out; lower `workers` in the "
    "stage's section of the parameters, if it has one, or give more memory, and run again"
)
# default threads; more are limited by memory bandwidth, and each holds a block
CORES = min(os.cpu_count() or 1, 8)


@dataclass(frozen=True)
class Threads:
    """Several threads that call one worker."""

    number: int = CORES

    @contextmanager
    def opened(self, make: Make[Any, Any]) -> Iterator[Submit]:
        worker = make()
        with ThreadPoolExecutor(self.number) as pool:
            yield lambda job: pool.submit(worker, job)


@dataclass(frozen=True)
class Processes:
    """Processes with a worker each; without `torch` they start faster and take less memory."""

    number: int
    torch: bool = True

    @contextmanager
    def opened(self, make: Make[Any, Any]) -> Iterator[Submit]:
        # fork would copy held locks of BLAS and torch threads
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.number, context, _begin, (make, self.torch)) as pool:
            try:
                yield lambda job: pool.submit(_work, job)
            except BaseException as e:
                # do not wait for long jobs before reporting the error
                for process in multiprocessing.active_children():
                    process.terminate()
                if isinstance(e, BrokenProcessPool):
                    raise UserError(KILLED.format(self.number)) from None
                raise


# created at the process's first job, as errors in a pool's initializer are reported without their
# cause
_worker: Callable[[], Worker[Any, Any]]


def _begin(make: Make[Any, Any], torch: bool) -> None:
    global _worker
    _worker = cache(make)
    if torch:
        from torch import set_num_threads

        # the order of summation, and so the result, must not depend on the number of cores
        set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _work(job: Any) -> Any:
    return _worker()(job)


def _end_with_parent() -> None:
    """Exit when the parent process is killed."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def run_jobs(
    make: Make[Job, Result],
    jobs: Iterable[Job],
    workers: Threads | Processes | None = None,
    ordered: bool = True,
    ahead: int = 0,
) -> Iterator[tuple[Job, Result]]:
    """Run jobs in workers or in this process, and yield each with its result.

    Results come in order or as jobs finish; an error ends all. Jobs are taken as results are
    consumed, `ahead` more than can run at a time. With n workers, an ordered job may therefore
    depend on the results of all but the n - 1 jobs before it.
    """
    if workers is None:
        worker = cache(make)
        for job in jobs:
            yield job, worker()(job)
        return

    source = iter(jobs)
    first = list(islice(source, 1))
    if not first:  # starts no workers
        return
    source = chain(first, source)
    with workers.opened(make) as submit:
        # taking jobs as results are consumed limits memory
        pending = {submit(job): job for job in islice(source, workers.number + ahead)}
        try:
            while pending:
                future = _next_future(pending, ordered)
                yield pending.pop(future), future.result()
                for job in islice(source, 1):
                    pending[submit(job)] = job
        finally:
            # the consumer has stopped or a job has failed
            for future in pending:
                future.cancel()


def _next_future(pending: Iterable[Future[Any]], ordered: bool) -> Future[Any]:
    if ordered:
        return next(iter(pending))
    return next(iter(wait(pending, return_when=FIRST_COMPLETED).done))


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    return (result for _, result in run_jobs(lambda: work, jobs, Threads(), ahead=1))


def in_processes(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Run jobs in processes of one thread each; yield each job with its result as they finish."""
    return run_jobs(partial(partial, work), jobs, Processes(workers), ordered=False, ahead=1)
