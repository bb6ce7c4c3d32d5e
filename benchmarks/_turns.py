"""Time implementations ("ways") alternately, so that other load on the machine affects all of them alike."""

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
STEADY = 1.1  # maximum ratio of the largest to the smallest time on a quiet machine


class Turn(NamedTuple, Generic[Result]):
    """Timing and result of a way in one round."""

    wall: float  # seconds
    cpu: float  # seconds, user and system, of all threads and of child processes that have ended
    result: Result

    def giving(self, result: Other) -> Turn[Other]:
        """Return a copy with another result."""
        return Turn(self.wall, self.cpu, result)


class Spread(NamedTuple):
    """Median and range."""

    median: float
    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.smallest)} .. {short(self.largest)})"


@dataclass(frozen=True)
class Way(Generic[Result]):
    """Turns of a way, by round."""

    turns: Sequence[Turn[Result]]
    work: float = 1  # units of work per turn

    @property
    def wall(self) -> Spread:
        return spread([turn.wall for turn in self.turns])

    @property
    def cpu(self) -> Spread:
        return spread([turn.cpu for turn in self.turns])

    @property
    def last(self) -> Result:
        """Result of the last turn."""
        return self.turns[-1].result

    def times_as_fast(self, other: Way[Any], seconds: str = "wall") -> Spread:
        """Return the speedup over `other` per unit of work, in `wall` or `cpu` seconds, from ratios within rounds."""
        pairs = zip(self.turns, other.turns, strict=True)
        scale = self.work / other.work
        return spread(
            [getattr(theirs, seconds) / getattr(ours, seconds) * scale for ours, theirs in pairs]
        )


def take(
    ways: Mapping[str, Callable[[], Turn[Result]]],
    rounds: int = ROUNDS,
    work: Mapping[str, float] | float = 1,
    warm_up: bool = False,
) -> dict[str, Way[Result]]:
    """Give each way a turn of `work` units per round, starting with way r in round r, after an optional warm-up."""
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
    """Run and time `work`, including asynchronous work on a GPU."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    result = work(*args)
    torch = sys.modules.get(
        "torch"
    )  # importing it here would add to the time of ways without torch
    if torch and torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return Turn(time.perf_counter() - wall, _cpu_seconds() - cpu, result)


@contextmanager
def process(environment: Mapping[str, str] | None = None) -> Iterator[Callable[..., Any]]:
    """Yield a function that runs `work(*args)` in a separate process, which isolates allocator, threads and caches.

    Variables of `environment` are set, or removed if empty, before modules are loaded.
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
    with process() as run:
        return run(partial(work, *args))


def short(value: float) -> str:
    """Format with three significant digits, or as an integer from 1,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def advice(way: Way[Any]) -> str | None:
    """Return a note on which figures are reliable if rounds vary, else None."""
    if way.wall.largest <= STEADY * way.wall.smallest:
        return None
    if way.cpu.largest <= STEADY * way.cpu.smallest:
        return "wall seconds vary, CPU seconds do not: the machine was busy; trust CPU seconds and ratios"
    return "wall and CPU seconds vary: trust only the ratios, or measure again on a quiet machine"


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
