"""Memory and OpenMP threads of this process, and its rank under `torchrun`.

Only rank 0 writes.

Imports only the standard library, and torch where there are several processes or it is loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

STATUS = Path("/proc/self/status")
MAXRSS_PER_MIB = 1 << 20 if sys.platform == "darwin" else 1 << 10  # units of `ru_maxrss`
SECONDS_PER_SAMPLE = 0.1  # of memory; a sample takes 30 microseconds
# bytes of address space that libraries reserve; with less, some abort or report intact files as
# damaged
ADDRESSES = 4 << 30
TOO_LITTLE = (
    f"too little memory; alignrec needs {ADDRESSES >> 30} GiB of addresses (`ulimit -v`), "
    "more for large data"
)

# wait policy of OpenMP (torch, FAISS): sleep, or spin if the machine is idle
POLICY = "OMP_WAIT_POLICY"
SPINS = "GOMP_SPINCOUNT"
# spins before a thread sleeps: as fast as OpenMP's default of 300,000 and cheaper on a busy machine
SPIN_COUNT = "10000"
SECONDS_OF_LOAD = 0.05  # over which the load is measured
MIN_IDLE_SHARE = 0.9  # of CPU time, for the machine to count as idle
CPU_TIMES = Path("/proc/stat")
_is_policy_given = bool({POLICY, SPINS} & os.environ.keys())

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # torch's setting
# numbers of mallopt's settings (malloc.h)
TRIM_THRESHOLD = -1
MMAP_MAX = -4
MAX_INT = 2**31 - 1  # bytes; mallopt takes an int
# maximum wait of other ranks while rank 0 decodes images or measures
MAX_WAIT = timedelta(hours=6)
OUT_OF_MEMORY = ("allocate memory", "out of memory")


def peak_mib() -> int:
    """Return the peak resident size in MiB, including libraries and mapped files; 0 on Windows."""
    if STATUS.exists():  # on Linux, ru_maxrss starts at the size of the parent process
        return _status_kib("VmHWM") // 1024
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MAXRSS_PER_MIB


def largest_child_mib() -> int:
    """Return the peak resident size of the largest child that has ended, in MiB; 0 on Windows."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // MAXRSS_PER_MIB


def address_limit() -> int | None:
    """Return the limit of the address space in bytes (`ulimit -v`); None if there is none."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


class PeakMemory:
    """Peak memory of this process without mapped files, whose pages the system can drop."""

    mib: int | None = None  # maximum of the samples; None if the system does not report memory


@contextmanager
def watch_memory() -> Iterator[PeakMemory]:
    """Sample memory until the block ends, as Linux does not record the peak of anonymous memory."""
    peak = PeakMemory()
    ended = threading.Event()

    def sample_size() -> None:
        while True:
            peak.mib = max(peak.mib or 0, _status_kib("RssAnon") // 1024)
            if ended.wait(SECONDS_PER_SAMPLE):
                return

    if not STATUS.exists() or "RssAnon:" not in STATUS.read_text():
        yield peak
        return
    thread = threading.Thread(target=sample_size, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _status_kib(key: str) -> int:
    return int(STATUS.read_text().split(f"{key}:", 1)[1].split(maxsplit=1)[0])


def keep_large_buffers() -> bool:
    """Make malloc keep large freed buffers for reuse.

    Return whether the C library supports that.
    """
    # glibc unmaps buffers above 32 MiB when they are freed, and the next step faults every page in
    # again: a third of AlignRec's step at 63,001 items, whose feature gradient has 194 MB. In
    # exchange memory stays at its peak.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing on musl and macOS
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, MAX_INT))


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MiB in large tensors, unless the user has set it. Linux only."""
    # a fresh tensor of 384 MB takes 80 ms in place of 190 where pages are faulted in by 4 KiB
    os.environ.setdefault(HUGE_PAGES, "1")


def ran_out(error: Exception) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    # torch raises a plain RuntimeError if CPU memory runs out
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def let_threads_sleep() -> None:
    """Let waiting threads of OpenMP sleep, unless the user has set a policy."""
    if _is_policy_given:
        return

    os.environ[POLICY] = "PASSIVE"
    # torch has read its settings before
    if "torch" in sys.modules and CPU_TIMES.exists():
        outnumber_processors()


def outnumber_processors() -> None:
    """Start more threads of OpenMP than there are processors; they sleep until the process ends.

    GNU's OpenMP then lets all threads sleep after 1,000 spins instead of 300,000, see
    GOMP_SPINCOUNT in its manual. Its settings themselves cannot be changed after it was loaded.
    """
    import torch

    has_started = threading.Event()

    def start_threads() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(len(os.sched_getaffinity(0)) + 1)
        torch.ones(1 << 20).sum()
        torch.set_num_threads(threads)
        has_started.set()
        threading.Event().wait()

    threading.Thread(target=start_threads, daemon=True).start()
    has_started.wait()


def spin_if_idle() -> None:
    """Let threads spin if the machine is idle, unless the user has set a policy. Linux only."""
    # on two idle cores spinning takes 25 % off a training step; next to one busy process a step
    # takes twice as long
    if _is_policy_given or not CPU_TIMES.exists():
        return
    if measure_idle_share() >= MIN_IDLE_SHARE:
        os.environ[SPINS] = SPIN_COUNT


def measure_idle_share() -> float:
    """Return the idle fraction of CPU time now; 1 where the system does not say."""
    if not CPU_TIMES.exists():
        return 1.0
    before = CPU_TIMES.read_text()
    time.sleep(SECONDS_OF_LOAD)
    return idle_share(before, CPU_TIMES.read_text())


def idle_share(before: str, after: str) -> float:
    """Return the idle fraction of CPU time between two states of /proc/stat, see proc_stat(5)."""
    passed = [b - a for a, b in zip(_cpu_times(before), _cpu_times(after), strict=True)]
    _, _, _, idle, iowait, *_ = passed  # user, nice, system, idle, iowait, irq, softirq, steal
    return (idle + iowait) / max(sum(passed), 1)


def _cpu_times(stat: str) -> list[int]:
    first_line, _, _ = stat.partition("\n")
    return [int(number) for number in first_line.split()[1:9]]


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[None]:
    if world() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    # a caller has already initialised the group
    if dist.is_initialized():
        yield
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpus else "gloo", timeout=MAX_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def rank_zero_first() -> Iterator[None]:
    if world() == 1:
        yield
        return
    import torch.distributed as dist

    if rank():
        dist.barrier()
    yield
    if not rank():
        dist.barrier()


def all_reduce(x: Tensor) -> Tensor:
    """Sum over processes, without gradient."""
    if world() == 1:
        return x
    import torch.distributed as dist

    # copy, as all_reduce works in place
    total = x.detach().clone()
    dist.all_reduce(total)
    return total
