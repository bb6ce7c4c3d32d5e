"""Jobs in threads and processes: all results, in order on request, and errors at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import code, engine, process


def double(n: int) -> int:
    return 2 * n


def doubling() -> Callable[[int], int]:
    return double


def light(work: Callable[[Any], Any], jobs: Any, ordered: bool) -> list[tuple[Any, Any]]:
    """Run `engine.in_processes` with two workers that do not load torch, which takes seconds."""
    return list(
        engine.run_jobs(partial(partial, work), jobs, engine.Processes(2, torch=False), ordered, ahead=not ordered)
    )


def fail_or_sleep(n: int) -> None:
    if n == 0:
        raise ValueError("job 0 failed")
    time.sleep(3600)


def test_every_job_comes_back_with_its_result() -> None:
    assert dict(engine.in_processes(double, [1, 2, 3], workers=2)) == {1: 2, 2: 4, 3: 6}
    assert list(engine.in_processes(double, [], workers=2)) == []


def test_in_order_keeps_the_order_and_takes_a_job_when_an_earlier_result_was_consumed() -> None:
    dealt: list[int] = []

    def jobs() -> Iterator[int]:
        for n in range(4):
            yield 10 * n + len(dealt)

    for job, result in engine.run_jobs(doubling, jobs(), engine.Processes(2, torch=False)):
        assert result == 2 * job
        dealt.append(job)
    assert dealt == [0, 10, 21, 32]  # the first two knew nothing, the others all but the one before them


def test_an_error_does_not_wait_for_the_other_jobs() -> None:
    with pytest.raises(ValueError, match="0"):
        light(fail_or_sleep, [1, 0, 2], ordered=False)  # the others sleep for an hour


def killed(n: int) -> None:
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_worker_that_the_system_kills_is_one_line(ordered: bool) -> None:
    with pytest.raises(UserError, match="killed"):
        light(killed, [0, 1, 2, 3], ordered)


# --- threads


def test_what_fails_in_a_thread_is_raised_and_what_waits_is_bounded() -> None:
    begun: list[int] = []

    def unlucky(n: int) -> int:
        begun.append(n)
        if n == 13:
            raise UserError("job 13 is unlucky")
        return n

    with pytest.raises(UserError, match="13"):
        list(engine.run_jobs(lambda: unlucky, [1, 13, *range(20, 40)], engine.Threads(2), ahead=1))
    assert len(begun) < 8


def test_threads_share_a_worker_and_keep_the_order() -> None:
    ended = [threading.Event() for _ in range(6)]

    def square(n: int) -> int:
        assert n % 2 or ended[n + 1].wait(60)  # for the other thread: two work at a time
        ended[n].set()
        return n * n

    found = engine.run_jobs(lambda: square, range(6), engine.Threads(2), ahead=1)
    assert list(found) == [(n, n * n) for n in range(6)]


def test_unordered_results_come_as_they_end() -> None:
    taken, jobs = threading.Event(), list[int]()
    for job, _ in engine.run_jobs(lambda: lambda n: n == 0 or taken.wait(60), [1, 0], engine.Threads(2), ordered=False):
        jobs.append(job)
        taken.set()
    assert jobs == [0, 1]


# --- threads that wait


def print_of(script: str) -> str:
    """Return what Python prints in a process whose threads have no policy."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", process.HUGE_PAGES)
    }
    command = [sys.executable, "-c", script]
    return subprocess.check_output(command, env=environment, cwd=code.ROOT, text=True)


def test_alignrec_lets_threads_sleep_and_asks_for_huge_pages_before_torch_is_loaded() -> None:
    names = ["OMP_WAIT_POLICY", process.HUGE_PAGES]
    script = f"import os, sys, alignrec; print(*map(os.environ.get, {names}), 'torch' in sys.modules)"
    assert print_of(script) == "PASSIVE 1 False\n"


@pytest.mark.skipif(not process.CPU_TIMES.exists(), reason="of Linux")
def test_torch_that_is_loaded_first_gets_more_threads_than_processors() -> None:
    script = (
        "import os, torch; threads = torch.get_num_threads(); import alignrec; "
        "print(threads == torch.get_num_threads(), "
        "len(os.listdir('/proc/self/task')) > len(os.sched_getaffinity(0)) + 1)"
    )
    assert print_of(script) == "True True\n"
