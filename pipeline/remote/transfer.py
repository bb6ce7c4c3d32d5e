"""What fetching and publishing a release share: progress in bytes, and the refusal of a version that exists."""

import threading
from collections.abc import Callable

Progress = Callable[[int, int], None]  # called with (bytes so far, bytes in all)


class AlreadyReleased(Exception):
    """The version is released already, with other content."""


class Meter:
    """Counts the bytes of all threads, and stops them."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def add(self, n: int) -> None:
        with self.lock:
            self.done += n
            self.progress(self.done, self.total)
