"""Measure the speed of this machine, for `alignrec plan`."""

import os
from typing import NamedTuple

from alignrec.pipeline.linalg.device import gemm_rate
from alignrec.pipeline.runtime import process

SECONDS = 0.5  # of short products, so that some are undisturbed


class Machine(NamedTuple):
    """Speed of this machine."""

    gemm: float  # float32 matrix product rate, at most that of the idle machine, FLOP/s
    idle: float = 1.0  # fraction of CPU time that other processes leave now

    def __str__(self) -> str:
        rate = f"computed for {self.gemm / 1e12:.2f} TFLOP/s"
        if self.idle >= process.MIN_IDLE_SHARE:
            return f"{rate}, measured now"
        cores = os.cpu_count() or 1
        return (
            f"the machine is busy: {self.idle * cores:.1f} of {cores} cores are free; "
            f"{rate}, and when idle it may take less time"
        )


def measure_machine() -> Machine:
    idle = process.measure_idle_share()
    rate = gemm_rate("float32", SECONDS, short=True)
    return Machine(rate, idle)
