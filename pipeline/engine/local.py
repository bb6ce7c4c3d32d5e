"""Independent jobs, whose results are the same wherever the workers are: in threads or processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol, TypeVar

from alignrec.pipeline.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
Worker = Callable[[Job], Result]
Make = Callable[[], Worker[Job, Result]]  # makes a worker where it works, at its first job, as it may load a network


class Seats(NamedTuple):
    """An open place."""

    submit: Callable[[Any], Future[Any]]  # begins a job; one more than there are seats waits
    number: int  # jobs that are done at a time


class Place(Protocol):
    """Where jobs are done; `opened` waits for jobs that have begun, or ends them if it can."""

    def opened(self, make: Make[Any, Any]) -> AbstractContextManager[Seats]: ...


KILLED = (
    "one of {} worker processes was killed, most likely as memory ran out; lower `workers` in the stage's section of "
    "the parameters, if it has one, or give more memory, and run again"
)
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
class Processes:
    """A worker per process. Without `torch` they start faster and take less memory."""

    number: int
    torch: bool = True

    @contextmanager
    def opened(self, make: Make[Any, Any]) -> Iterator[Seats]:
        """Processes start when there are jobs for them, end with this one, and at once if anything fails."""
        context = multiprocessing.get_context("spawn")  # a fork would copy locked locks of BLAS and torch threads
        with ProcessPoolExecutor(self.number, context, _begin, (make, self.torch)) as pool:
            try:
                yield Seats(lambda job: pool.submit(_work, job), self.number)
            except BaseException as e:
                for process in multiprocessing.active_children():  # the error is shown now, not when a long job ends
                    process.terminate()
                if isinstance(e, BrokenProcessPool):
                    raise UserError(KILLED.format(self.number)) from None
                raise


# of this process; the worker is made at the first job, as an error of the pool's own start names no cause
_worker: Callable[[], Worker[Any, Any]]


def _begin(make: Make[Any, Any], torch: bool) -> None:
    global _worker
    _worker = cache(make)
    if torch:
        from torch import set_num_threads

        set_num_threads(1)  # the order of summation, and so the result, does not depend on the machine's cores
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _work(job: Any) -> Any:
    return _worker()(job)


def _end_with_parent() -> None:
    """Exit with the parent: a worker whose parent was killed would otherwise wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def map(
    make: Make[Job, Result], jobs: Iterable[Job], on: Place | None = None, ordered: bool = True, ahead: int = 0
) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result, in order or as they finish; a job is taken when a result is consumed.

    So an ordered job may depend on the results of all but the `workers` - 1 jobs before it. What a worker raises ends
    all. `on` says where workers are, by default in this process; `ahead` are jobs taken beyond those that can be done.
    """
    source = iter(jobs)
    if on is None:
        worker = cache(make)
        for job in source:
            yield job, worker()(job)
    elif first := list(islice(source, 1)):
        with on.opened(make) as seats:
            source = chain(first, source)
            # jobs are taken as results are consumed, which bounds memory
            pending = {seats.submit(job): job for job in islice(source, seats.number + ahead)}
            try:
                while pending:
                    future = next(iter(pending if ordered else wait(pending, return_when=FIRST_COMPLETED).done))
                    yield pending.pop(future), future.result()
                    pending |= {seats.submit(job): job for job in islice(source, 1)}
            finally:
                # the consumer stopped, or a job failed
                for future in pending:
                    future.cancel()


def threads(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    return (result for _, result in map(lambda: work, jobs, Threads(), ahead=1))


def each(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result as they finish, by processes of one thread each; see `map`."""
    return map(partial(partial, work), jobs, Processes(workers), ordered=False, ahead=1)
