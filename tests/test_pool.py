"""Jobs in processes: every result, and an error at once."""

import time
from collections.abc import Iterator

import pytest

from pipeline import pool


def double(n: int) -> int:
    return 2 * n


def fail_or_sleep(n: int) -> None:
    if n == 0:
        raise ValueError("job 0 failed")
    time.sleep(60)


def test_every_job_comes_back_with_its_result() -> None:
    assert dict(pool.each(double, [1, 2, 3], workers=2)) == {1: 2, 2: 4, 3: 6}
    assert list(pool.each(double, [], workers=2)) == []


def test_in_order_keeps_the_order_and_takes_a_job_when_an_earlier_result_was_consumed() -> None:
    dealt: list[int] = []

    def jobs() -> Iterator[int]:
        for n in range(4):
            yield 10 * n + len(dealt)

    for job, result in pool.in_order(double, jobs(), workers=2):
        assert result == 2 * job
        dealt.append(job)
    assert dealt == [0, 10, 21, 32]  # the first two knew nothing, the others all but the one before them


def test_an_error_does_not_wait_for_the_other_jobs() -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match="job 0 failed"):
        list(pool.each(fail_or_sleep, [1, 0, 2], workers=2))
    assert time.monotonic() - begun < 50
