"""What two settings do together, for heat maps."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.benchmark.params import Range
from pipeline.experiment.search import Space, Tried

BINS = 5
"""parts that a range is cut into"""


def effects(tried: Sequence[Tried], space: Space) -> list[dict[str, Any]]:
    """Return the best valid figure at each pair of values of two settings, as rows for a heat map.

    A range is cut into parts, each named by its middle. Rows: settings ("lr, cca"), x and y (values), valid, trials.
    """
    labels = {name: _labels(values) for name, values in space.items()}
    cells: dict[tuple[str, float, float], list[float]] = {}
    for x, y in itertools.combinations(space, 2):
        for one in tried:
            if one.valid is not None:
                key = (f"{x}, {y}", _nearest(labels[x], one.setting[x]), _nearest(labels[y], one.setting[y]))
                cells.setdefault(key, []).append(one.valid)
    return [
        {"settings": pair, "x": f"{x:.3g}", "y": f"{y:.3g}", "valid": max(values), "trials": len(values)}
        for (pair, x, y), values in sorted(cells.items())
    ]


def heatmaps(effects: Mapping[tuple[str, str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the effects of several sweeps as rows of one file; `map` says of which sweep and settings each is."""
    return [{"map": f"{' '.join(names)}: {row['settings']}", **row} for names, rows in effects.items() for row in rows]


def _labels(values: Range | list[int | float]) -> list[float]:
    """Return a list's values, or the middles of a range's parts."""
    if isinstance(values, list):
        return [float(v) for v in values]
    low, high = (math.log(v) if values.log else v for v in (values.low, values.high))
    middles = [low + (high - low) * (i + 0.5) / BINS for i in range(BINS)]
    return [math.exp(m) if values.log else m for m in middles]


def _nearest(labels: Sequence[float], value: float) -> float:
    positive = min(*labels, value) > 0
    distance = (lambda a: abs(math.log(a / value))) if positive else (lambda a: abs(a - value))
    return min(labels, key=distance)
