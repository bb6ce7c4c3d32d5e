"""What may be tried again, and when."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be another one later
LONGEST_WAIT = 60.0  # seconds, whatever the server asks for

Result = TypeVar("Result")


class Passing(Exception):
    """A failure that may pass."""

    def __init__(self, cause: str, wait: float | None = None, detail: str = "") -> None:
        """Note what is known of it.

        Args:
            cause: for people, and without secrets.
            wait: seconds that the server asked for.
            detail: more words on it; they may hold an address.
        """
        super().__init__(cause)
        self.wait, self.detail = wait, detail


def persist(work: Callable[[], Result], tries: int) -> Result:
    """Return what `work` returns, called again after a pause while it raises Passing; the last one is raised."""
    for attempt in range(tries - 1):
        try:
            return work()
        except Passing as e:
            time.sleep(pause(attempt, e.wait))
    return work()


def pause(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait after try number `attempt`, from 0.

    What the server asked for, or half a second that doubles with every try; the random half keeps clients that failed
    together from coming back together.
    """
    return min(asked if asked is not None else 2**attempt * random.uniform(0.25, 0.75), LONGEST_WAIT)


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date), or None."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
