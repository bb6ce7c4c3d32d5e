"""Learning rates over a training."""

import math


def warmup_cosine(step: int, steps: int, warmup: float, peak: float) -> float:
    """Return the rate of step 0 .. steps-1: up over the share `warmup`, then half a cosine from `peak` to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
