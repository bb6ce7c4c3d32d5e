"""Limit and peak of this process's memory. Loads no library."""

import resource
import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of `ru_maxrss`, in a MiB
# bytes that libraries and their threads reserve; with fewer some end the process, or call sound files damaged
ADDRESSES = 4 << 30
TOO_LITTLE = f"too little memory; alignrec needs {ADDRESSES >> 30} GiB of addresses (`ulimit -v`), more for large data"


def has_addresses() -> bool:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit == resource.RLIM_INFINITY or limit >= ADDRESSES


def peak_mib() -> int:
    """Return the largest resident size of this process, MiB: of its libraries and of the files that it maps too."""
    if STATUS.exists():  # ru_maxrss of a Linux process begins at the size of the parent that started it
        return int(STATUS.read_text().split("VmHWM:", 1)[1].split(maxsplit=1)[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // UNIT


def largest_child_mib() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // UNIT


def reset_peak() -> bool:
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True
