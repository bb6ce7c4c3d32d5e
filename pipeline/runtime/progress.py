"""Progress of a stage: bars on a terminal, otherwise a line per minute, and a line at the end."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

MINUTE = 60.0  # seconds between lines without a terminal
WORTH = 10.0  # seconds of results before the time left is estimated
SHORT = "{desc}: {n_fmt}/{total_fmt} {unit}{postfix}"
TEXT = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"


class Bar(tqdm):
    """A bar that measures its rate from the first result, without start-up, and estimates the time left after WORTH."""

    first: int | None = None  # count at the first result

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        if self.first is None:
            self.first, self.start_t, self.last_print_t = self.n, self._time(), self._time()
        return shown

    @property
    def format_dict(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().format_dict
        since = 0.0 if self.first is None else self._time() - self.start_t
        rate = (self.n - self.first) / since if self.first is not None and since > WORTH else 0.0
        return facts | {
            "rate": rate,
            "initial": self.n,
        }  # without a rate, tqdm would take the mean since `initial`


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
    """Yield a callback that takes the bytes done and the total; without a terminal it prints a line per minute."""
    with stage_bar(label, hidden=False, unit="B") as shown, print_heartbeat(label, [shown]):
        yield meter(shown)


def meter(shown: tqdm) -> Callable[[int, int | None], None]:
    shown.unit_scale = True

    def at(done: int, total: int | None) -> None:
        shown.total = total
        shown.update(done - shown.n)

    return at


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
    for open_bar in reversed(bars):
        facts = open_bar.format_dict
        if facts["total"] is None or open_bar.n < facts["total"]:
            return tqdm.format_meter(
                **(facts | {"bar_format": TEXT if facts["rate"] else SHORT, "ncols": None})
            )
    return f"{label}: running for {tqdm.format_interval(seconds)}"
