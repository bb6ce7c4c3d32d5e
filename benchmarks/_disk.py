"""The most that a folder takes on disk while a block runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

SECONDS = 1.0  # between two looks


class Disk:
    """Looks at a folder each second; `peak` is the most bytes that it took, hard links counted once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ended = folder, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> Disk:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Look a last time."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(SECONDS)
            self.peak = max(self.peak, taken(self._folder))


def taken(folder: Path) -> int:
    """Return the bytes that a folder's files take on disk; files that vanish meanwhile count as nothing."""
    blocks = {}
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.lstat(os.path.join(base, name))
            except FileNotFoundError:
                continue
            blocks[stat.st_dev, stat.st_ino] = 512 * stat.st_blocks
    return sum(blocks.values())
