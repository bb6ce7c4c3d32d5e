"""Workers in processes of one thread each, whose bytes do not depend on their number."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from pipeline.engine.local import Job, Make, Result, Seats, Worker, map
from pipeline.errors import UserError

KILLED = (
    "one of {} worker processes was killed, most likely as memory ran out; lower `workers` in the stage's section of "
    "the parameters, if it has one, or give more memory, and run again"
)


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


def each(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result as they finish, by processes of one thread each; see `map`."""
    return map(partial(partial, work), jobs, Processes(workers), ordered=False, ahead=1)


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
