"""Limit, peak and allocator of this process's memory. Loads no library."""

import ctypes
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")
UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of `ru_maxrss`, in a MiB
INTERVAL = 0.1  # seconds between samples, which take 30 microseconds each
# bytes that libraries and their threads reserve; with fewer some end the process, or call sound files damaged
ADDRESSES = 4 << 30
TOO_LITTLE = f"too little memory; alignrec needs {ADDRESSES >> 30} GiB of addresses (`ulimit -v`), more for large data"

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # numbers of mallopt's settings (malloc.h)
MOST = 2**31 - 1  # bytes; mallopt takes an int


def has_addresses() -> bool:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit == resource.RLIM_INFINITY or limit >= ADDRESSES


def peak_mib() -> int:
    """Return the largest resident size of this process, MiB: of its libraries and of the files that it maps too."""
    if STATUS.exists():  # ru_maxrss of a Linux process begins at the size of the parent that started it
        return _status_kib("VmHWM") // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // UNIT


class Own:
    """Memory of this process without the pages of files that it maps, which the system may drop."""

    mib: int | None = None  # the largest sample; None where the system has no such figure


@contextmanager
def watch_memory() -> Iterator[Own]:
    """Yield what is sampled every INTERVAL until the block ends, as Linux keeps no peak of it."""
    own, ended = Own(), threading.Event()

    def sample_size() -> None:
        while True:
            own.mib = max(own.mib or 0, _status_kib("RssAnon") // 1024)
            if ended.wait(INTERVAL):
                return

    # other systems have no such figure
    if not STATUS.exists() or "RssAnon:" not in STATUS.read_text():
        yield own
        return
    thread = threading.Thread(target=sample_size, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        ended.set()
        thread.join()


def _status_kib(key: str) -> int:
    return int(STATUS.read_text().split(f"{key}:", 1)[1].split(maxsplit=1)[0])


def largest_child_mib() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // UNIT


def keep_large_buffers() -> bool:
    """Have this process reuse large buffers; return whether the C library can.

    glibc unmaps more than 32 MiB as soon as it is freed, and the next step faults every page in again: a third of
    AlignRec's step at 63,001 items, whose feature gradient has 194 MB. Memory stays at its peak instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, macOS and Windows have none
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, MOST))


def ran_out(error: Exception) -> bool:
    """Return whether an error says that memory ran out; torch has no kind of its own for that of the CPU."""
    messages = "allocate memory", "out of memory"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(s in str(error) for s in messages)
    )
