"""Progress of a stage: bars on a terminal, otherwise a line per minute, and a line at the end."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

MINUTE = 60.0  # seconds between lines without a terminal
MIN_SECONDS_TO_ESTIMATE = 10.0  # of results, before the time left is estimated
WITHOUT_RATE = "{desc}: {n_fmt}/{total_fmt} {unit}{postfix}"
WITH_RATE = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"


class Bar(tqdm):
    """A bar that measures its rate from the first result, without start-up."""

    first: int | None = None  # count at the first result

    def update(self, n: float | None = 1) -> bool | None:
        was_drawn = super().update(n)
        if self.first is None:
            self.first = self.n
            self.start_t = self.last_print_t = self._time()
        return was_drawn

    @property
    def format_dict(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().format_dict
        # without a rate, tqdm would take the mean since `initial`
        return facts | {"rate": self._rate(), "initial": self.n}

    def _rate(self) -> float:
        if self.first is None:
            return 0.0
        seconds = self._time() - self.start_t
        return (self.n - self.first) / seconds if seconds > MIN_SECONDS_TO_ESTIMATE else 0.0


class Silent(Bar):
    """A bar that is not drawn but printed by `print_heartbeat`."""

    def display(self, *_: Any, **__: Any) -> None: ...


def stage_bar(label: str, hidden: bool, **options: Any) -> tqdm:
    if hidden:
        return tqdm(disable=True, **options)
    options |= {"desc": label, "mininterval": 0.5, "smoothing": 0.1}
    return Bar(**options) if sys.stderr.isatty() else Silent(file=io.StringIO(), **options)


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a callback that takes the bytes done and the total.

    Without a terminal it prints a line per minute.
    """
    with stage_bar(label, hidden=False, unit="B") as bar, print_heartbeat(label, [bar]):
        yield meter(bar)


def meter(bar: tqdm) -> Callable[[int, int | None], None]:
    """Return a callback that moves a bar to the bytes done, of a total."""
    bar.unit_scale = True

    def move_to(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return move_to


@contextmanager
def print_heartbeat(label: str, bars: list[tqdm]) -> Iterator[None]:
    if sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(MINUTE):
            beats += 1
            print(bar_line(label, bars, beats * MINUTE), file=sys.stderr, flush=True)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bar_line(label: str, bars: list[tqdm], seconds: float) -> str:
    # the bar opened last that is not full shows the current work
    for bar in reversed(bars):
        facts = bar.format_dict
        if facts["total"] is None or bar.n < facts["total"]:
            form = WITH_RATE if facts["rate"] else WITHOUT_RATE
            return tqdm.format_meter(**(facts | {"bar_format": form, "ncols": None}))
    return f"{label}: running for {tqdm.format_interval(seconds)}"
