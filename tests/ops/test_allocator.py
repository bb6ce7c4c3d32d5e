import resource
import sys

import pytest
import torch
from processes import started

from pipeline.ops.allocator import keep_large_buffers


def say_faults(keep: bool) -> None:
    """Print the page faults of five times 64 MiB."""
    if keep:
        assert keep_large_buffers()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_large_buffer_is_faulted_in_once() -> None:
    kept, given_back = (int(started(say_faults, keep).communicate()[0]) for keep in (True, False))
    assert kept < given_back / 2
