"""Memory: how glibc frees large buffers, and which errors say that there is none left."""

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # numbers of mallopt's settings (malloc.h)
MOST = 2**31 - 1  # bytes; mallopt takes an int


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
