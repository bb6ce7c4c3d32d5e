"""Throughput of an encoder: items, operations, seconds."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any


class Throughput:
    """Counters of one feature set."""

    def __init__(self) -> None:
        self.items = self.taken_over = self.halved = 0  # encoded, reused, and encoded in half a batch
        self.flops = 0.0
        self.seconds: dict[str, float] = defaultdict(float)
        # read; decode: sum over threads; wait: for them; compute: in the network; write
        self._started = time.perf_counter()
        self._lock = Lock()  # several devices count here

    def add(self, what: str, seconds: float) -> None:
        with self._lock:
            self.seconds[what] += seconds

    def calculated(self, flops: float) -> None:
        with self._lock:
            self.flops += flops

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(what, time.perf_counter() - started)

    def facts(self, precision: str) -> dict[str, Any]:
        wall = time.perf_counter() - self._started
        facts: dict[str, Any] = {"items": self.items, "items_per_s": round(self.items / wall, 2)}
        facts |= {f"{what}_s": round(seconds, 3) for what, seconds in self.seconds.items()}
        if not self.flops:
            return facts
        from pipeline.ops.device import gemm_rate  # loads torch

        rate = gemm_rate(precision)
        share = float(f"{self.flops / wall / rate:.3g}")  # significant digits: it may be far below a thousandth
        return facts | {"gemm_gflop_per_s": round(rate / 1e9), "share_of_gemm_rate": share}
