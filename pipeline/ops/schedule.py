"""Learning rates over a training."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup: float, peak: float) -> float:
    """Return the rate of step 0 .. steps-1: linear up over the warm-up, then half a cosine down to zero.

    Args:
        step: from 0.
        steps: of the whole training.
        warmup: share of them in which the rate rises.
        peak: the highest rate.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
