"""Several ways to do the same work take turns, so that a busy machine slows all of them alike.

In every round each way has one turn; each round begins with another way. Wall seconds are what someone waits for, CPU
seconds what the processors work. Wall seconds above CPU seconds / threads are waiting: for other programs, a disk, a
network, a GPU.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Generic, NamedTuple, TypeVar

Result = TypeVar("Result")
Other = TypeVar("Other")
ROUNDS = 3
STEADY = 1.1  # largest over smallest of the same seconds on a quiet machine, at most


class Turn(NamedTuple, Generic[Result]):
    """One way's turn in one round."""

    wall: float  # seconds on the clock
    cpu: float  # seconds of all threads, user and system, and of child processes that have ended
    result: Result

    def giving(self, result: Other) -> Turn[Other]:
        """Return the same seconds with another result."""
        return Turn(self.wall, self.cpu, result)


class Spread(NamedTuple):
    """The median of some figures, and between what they lie."""

    median: float
    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.smallest)} .. {short(self.largest)})"


@dataclass(frozen=True)
class Way(Generic[Result]):
    """The turns of one way, in the order of the rounds."""

    turns: Sequence[Turn[Result]]
    work: float = 1  # how many units of work a turn does

    @property
    def wall(self) -> Spread:
        return spread([turn.wall for turn in self.turns])

    @property
    def cpu(self) -> Spread:
        return spread([turn.cpu for turn in self.turns])

    @property
    def last(self) -> Result:
        """What the last turn returned."""
        return self.turns[-1].result

    def times_as_fast(self, other: Way[Any], seconds: str = "wall") -> Spread:
        """Return the other's `wall` or `cpu` seconds a unit of work over ours, from the ratio within each round."""
        pairs = zip(self.turns, other.turns, strict=True)
        scale = self.work / other.work
        return spread([getattr(theirs, seconds) / getattr(ours, seconds) * scale for ours, theirs in pairs])


def take(
    ways: Mapping[str, Callable[[], Turn[Result]]],
    rounds: int = ROUNDS,
    work: Mapping[str, float] | float = 1,
    warm_up: bool = False,
) -> dict[str, Way[Result]]:
    """Give each way, which times itself with `timed`, one turn a round; round r begins with way r.

    `work` are the units that a turn does, of every way or of each. With `warm_up` a first round does not count: it
    builds kernels and fills caches.
    """
    names = list(ways)
    turns: dict[str, list[Turn[Result]]] = {name: [] for name in names}
    for name in names if warm_up else ():
        ways[name]()
    for r in range(rounds):
        first = r % len(names)
        for name in names[first:] + names[:first]:
            turns[name].append(ways[name]())
    amount = work if isinstance(work, Mapping) else dict.fromkeys(names, work)
    return {name: Way(turns[name], amount[name]) for name in names}


def timed(work: Callable[..., Result], *args: Any) -> Turn[Result]:
    """Do `work` and time it; a GPU is waited for."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    result = work(*args)
    torch = sys.modules.get("torch")  # not imported for this: that would take its time from who does without
    if torch and torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return Turn(time.perf_counter() - wall, _cpu_seconds() - cpu, result)


@contextmanager
def process(environment: Mapping[str, str] | None = None) -> Iterator[Callable[..., Any]]:
    """Yield a function that runs `work(*args)` in one process, always the same, that lives as long as the block.

    A way with a process of its own keeps its allocator's settings, threads and caches to itself. Functions are pickled:
    a module's, or a `partial` of one. The process sets the variables of `environment`, and removes empty ones, before
    it loads the module of `work`.
    """
    settings = (dict(environment or {}),)
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_set, initargs=settings) as pool:
        yield lambda work, *args: pool.submit(work, *args).result()


def _set(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        os.environ[name] = value
        if not value:
            del os.environ[name]


def alone(work: Callable[..., Result], *args: Any) -> Result:
    """Do `work` in a process that starts for it and ends with it."""
    with process() as run:
        return run(partial(work, *args))


def short(value: float) -> str:
    """Return a figure in three digits, or whole with commas where it has more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def advice(way: Way[Any]) -> str | None:
    """Return which figures to trust if the rounds differ; None if they agree."""
    if way.wall.largest <= STEADY * way.wall.smallest:
        return None
    if way.cpu.largest <= STEADY * way.cpu.smallest:
        return "wall seconds vary, CPU seconds do not: the machine was busy; trust CPU seconds and ratios"
    return "wall and CPU seconds vary: trust only the ratios, or measure again on a quiet machine"


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
