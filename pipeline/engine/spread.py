"""Independent jobs, whose results are the same wherever the workers are."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from functools import cache, partial
from itertools import chain, islice

from pipeline.engine.local import Job, Make, Place, Result, Threads
from pipeline.engine.processes import Processes


def map(
    make: Make[Job, Result], jobs: Iterable[Job], on: Place | None = None, ordered: bool = True, ahead: int = 0
) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result; a job is taken when a result is consumed.

    So an ordered job may depend on the results of all but the `workers` - 1 jobs before it, and never on timing. What
    a worker raises ends all; unfinished jobs are dropped.

    Args:
        make: makes a worker, if there are jobs; pickled for other processes, as are the jobs.
        jobs: begun in this order, so the longest should come first where `ordered` is false.
        on: where the workers are; None: one in this process.
        ordered: whether results come in the jobs' order, or as they finish.
        ahead: jobs taken beyond those that can be done at a time, so that no worker waits for the consumer.
    """
    source = iter(jobs)
    if on is None:
        worker = cache(make)
        for job in source:
            yield job, worker()(job)
    elif first := list(islice(source, 1)):
        with on.opened(make) as seats:
            source = chain(first, source)
            pending = {seats.submit(job): job for job in islice(source, seats.number + ahead)}
            try:
                while pending:
                    future = next(iter(pending if ordered else wait(pending, return_when=FIRST_COMPLETED).done))
                    yield pending.pop(future), future.result()
                    pending |= {seats.submit(job): job for job in islice(source, 1)}
            finally:
                for future in pending:
                    future.cancel()


def each(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result as they finish, by processes of one thread each; see `map`."""
    return map(partial(partial, work), jobs, Processes(workers), ordered=False, ahead=1)


def threads(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    return (result for _, result in map(lambda: work, jobs, Threads(), ahead=1))
