"""What a place is: where workers live and take jobs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Worker = Callable[[Job], Result]
Make = Callable[[], Worker[Job, Result]]
"""makes a worker where it works, at its first job, as it may load a network"""


class Seats(NamedTuple):
    """An open place."""

    submit: Callable[[Any], Future[Any]]
    """begins a job; one more than there are seats waits"""
    number: int
    """jobs that are done at a time"""


class Place(Protocol):
    """Where jobs are done."""

    def opened(self, make: Make[Any, Any]) -> AbstractContextManager[Seats]:
        """Open the place; it closes when the jobs that have begun are done, or at once if those can be ended."""
