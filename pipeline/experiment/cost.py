"""What a training takes. Beside the record and not in it: a record is equal bytes wherever it is made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import io
from pipeline.run import machine

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def measured(path: Path | None) -> Iterator[None]:
    """Write what a block takes, JSON: seconds of CPU, memory_mib, machine; nothing without a path.

    memory_mib is the most that was resident of this process, libraries included; null where the system does not tell.
    """
    if path is None:
        yield
        return
    before, is_reset = time.process_time(), _reset()
    yield
    seconds = round(time.process_time() - before, 3)
    io.write_json(
        path, {"seconds": seconds, "memory_mib": _peak() if is_reset else None, "machine": machine(_device())}
    )


def _reset() -> bool:
    """Begin to count the peak anew; return whether that can be done."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def _device() -> str:
    from pipeline.ops.device import pick  # loads torch

    return str(pick())
