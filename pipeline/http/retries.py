"""Which failures are retried, and after how long."""

import random
import re
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may be transient
LONGEST_WAIT = 60.0  # seconds, whatever the server asks for
LOOKUPS = 3  # tries to resolve a name
SECONDS = re.compile(r"\s*([0-9]{1,9})\s*")  # ASCII: Python's isdigit takes digits that float refuses

Result = TypeVar("Result")


class TransientError(Exception):
    """A failure that a retry may cure."""

    def __init__(self, cause: str, wait: float | None = None, detail: str = "") -> None:
        super().__init__(cause)
        self.wait, self.detail = wait, detail


class Unresolved(TransientError):
    """No host has the name: it is wrong, or there is no network."""

    def __init__(self, name: str) -> None:
        super().__init__(f"name not resolved: {name}")


def retry(work: Callable[[], Result], tries: int) -> Result:
    """Return what `work` returns, called again after a pause while it raises TransientError; raises the last."""
    for attempt in range(tries - 1):
        try:
            return work()
        except TransientError as e:
            if isinstance(e, Unresolved) and attempt + 1 >= LOOKUPS:
                raise
            time.sleep(pause(attempt, e.wait))
    return work()


def pause(attempt: int, requested: float | None = None) -> float:
    """Return the seconds to wait after try number `attempt`, from 0: as requested, or doubling, with jitter."""
    return min(requested if requested is not None else 2**attempt * random.uniform(0.25, 0.75), LONGEST_WAIT)


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date, GMT where it has no zone), or None."""
    if not value:
        return None
    if seconds := SECONDS.fullmatch(value):
        return float(seconds[1])
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
