"""Independent jobs in processes of one thread each, or in threads: as fast as the cores allow, the same bytes as one by
one.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from pipeline.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

KILLED = (
    "one of {} worker processes was killed, most likely as memory ran out; lower `workers` in the stage's section of "
    "the parameters, if it has one, or give more memory, and run again"
)
CORES = min(os.cpu_count() or 1, 8)
"""threads at a time; each holds a block, and more than a few wait for memory"""


def each(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result, in the order in which they finish.

    Args:
        work: a module's function or an instance of a module's class; it and the jobs are pickled.
        jobs: started in this order, so the longest should come first.
        workers: processes at a time.

    Raises:
        what `work` raises; unfinished jobs are dropped.
    """
    if not jobs:
        return
    with _processes(min(workers, len(jobs)), _begin) as pool:
        pending = {pool.submit(work, job): job for job in jobs}
        for future in as_completed(pending):
            yield pending[future], future.result()


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int, torch: bool = True
) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result, in the jobs' order; takes the next job when a result is consumed.

    So a job may depend on the results of all but the `workers` - 1 jobs before it, and never on timing. Workers without
    `torch` start faster and take less memory.
    """
    source = iter(jobs)
    with _processes(workers, _begin if torch else _watch) as pool:
        pending = deque((job, pool.submit(work, job)) for job in islice(source, workers))
        while pending:
            job, future = pending.popleft()
            yield job, future.result()
            pending.extend((job, pool.submit(work, job)) for job in islice(source, 1))


def threads(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """Yield the results in the jobs' order; for NumPy and SciPy work, which releases Python's lock."""
    with ThreadPoolExecutor(CORES) as pool:
        yield from pool.map(work, jobs)


@contextmanager
def _processes(workers: int, begin: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")  # a fork would copy locked locks of BLAS and torch threads
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin) as pool:
        try:
            yield pool
        except BaseException as e:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():  # the error is shown now, not when a long job ends
                worker.terminate()
            if isinstance(e, BrokenProcessPool):
                raise UserError(KILLED.format(workers)) from None
            raise


def _begin() -> None:
    import torch

    torch.set_num_threads(1)  # the order of summation, and so the result, does not depend on the machine's cores
    _watch()


def _watch() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit with the parent: a worker whose parent was killed would otherwise wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
