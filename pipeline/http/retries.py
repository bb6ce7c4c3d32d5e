"""When to ask a server again."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be another one later
LONGEST_WAIT = 60.0  # seconds, whatever the server asks for


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
