"""Measure the speed of this machine, for `alignrec plan`."""

import os
from typing import NamedTuple

from alignrec.pipeline.linalg.device import busy_gemm_rate, gemm_rate, pick_device
from alignrec.pipeline.runtime import process

BUSY_SECONDS = 0.5  # of short products, so that some are undisturbed


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
    rate = gemm_rate("float32", BUSY_SECONDS, short=True)
    if idle < process.MIN_IDLE_SHARE and pick_device().type == "cpu":
        rate = max(rate, busy_gemm_rate(BUSY_SECONDS))
    return Machine(rate, idle)
