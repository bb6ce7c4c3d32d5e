"""Jobs in processes: every result, and an error at once."""

import time

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


def test_an_error_does_not_wait_for_the_other_jobs() -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match="job 0 failed"):
        list(pool.each(fail_or_sleep, [1, 0, 2], workers=2))
    assert time.monotonic() - begun < 50
