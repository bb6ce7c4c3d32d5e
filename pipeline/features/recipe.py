"""What a candidate of kind `chosen` is, and how it is fitted to a catalogue.

Letters: I items, n of them, F and W widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pipeline.features.mapped import Targets, fit_map
from pipeline.ops import whitening
from pipeline.ops.joining import Fit, Parts
from pipeline.ops.rows import unit_rows
from pipeline.ops.whitening import Whitening

Mapping = Literal["none", "alone", "beside"]
HALF = np.float32(0.5)
"""length of the mapped vector beside 1 of the content's"""
RIDGE = 1.0
"""of the map, as the default of `mapped`"""


class Candidate(NamedTuple):
    """One way to make the set."""

    of: tuple[str, ...]
    """feature sets"""
    power: float
    """see LinearParams"""
    image: float
    """see LinearParams"""
    map: Mapping
    """to factors of train interactions: none, or alone or beside the content"""


@dataclass(frozen=True)
class Recipe:
    """A candidate that is fitted to a catalogue."""

    content: Fit
    ridge: Whitening | None
    """from content to factors"""
    last: Whitening | None
    """of both side by side"""

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 [n, W] of the parts' vectors, float32 [n, F] each."""
        content = self.content(parts)
        if self.ridge is None:
            return content
        factors = whitening.applied(self.ridge, content)
        return factors if self.last is None else whitening.applied(self.last, _both(content, factors))


def fit(parts: Parts, content: Fit, how: Mapping, width: int, targets: Targets | None) -> Recipe:
    """Return a candidate fitted to all items.

    Args:
        content: what maps them to one width.
        how: what is done with that.
        width: directions kept at most.
        targets: what a map is fitted to; None for a candidate without one.
    """
    if targets is None:
        return Recipe(content, None, None)
    ridge = fit_map(lambda: map(content, parts()), targets, RIDGE)
    if how == "alone":
        return Recipe(content, ridge, None)
    both = lambda: (_both(x, whitening.applied(ridge, x)) for x in map(content, parts()))  # noqa: E731
    return Recipe(content, ridge, whitening.fit_pca(both, width, 0))


def _both(content: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return np.hstack([unit_rows(content)[0], unit_rows(factors)[0] * HALF])
