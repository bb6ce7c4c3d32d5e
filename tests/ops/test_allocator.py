import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from pipeline.ops.allocator import keep_large_buffers
if sys.argv[1] == "kept":
    assert keep_large_buffers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_large_buffer_is_faulted_in_once() -> None:
    """Five times 64 MiB."""
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, stdout=subprocess.PIPE).stdout)
        for how in ("kept", "as it is")
    ]
    assert faults[0] < faults[1] / 2
