"""A paired test of a against b, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.evaluation.statistics import FLOOR, LEVEL, RESAMPLES

BEST, BETTER, SAME, WORSE = "best", "better", "level", "worse"  # marks of a table
FLOORED = f"≤ marks a p that could not be smaller with {RESAMPLES:,} resamples."


class Difference(NamedTuple):
    """A difference of two means, its 95 % interval, and its p."""

    low: float
    middle: float
    high: float
    p: float
    p_holm: float | None  # corrected for all tests of its table; None where it is not

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Difference:
        return cls(*(row[key] for key in ("low", "difference", "high", "p", "p_holm")))

    @classmethod
    def if_any(cls, row: Mapping[str, Any] | None) -> Difference | None:
        return None if row is None or row["difference"] is None else cls.of(row)

    @property
    def sure(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def mark(self) -> str:
        return SAME if not self.sure else BETTER if self.middle > 0 else WORSE

    @property
    def cells(self) -> list[str]:
        interval = f"{self.low:+.4f} .. {self.high:+.4f}"
        return [f"{self.middle:+.4f}", interval, p_value(self.p, self.p_holm)]

    @property
    def words(self) -> str:
        change, _, p = self.cells
        return f"{change}, p {p}"

    @property
    def reversed(self) -> Difference:
        return self._replace(low=0 - self.high, middle=0 - self.middle, high=0 - self.low)


def p_value(p: float, corrected: float | None = None) -> str:
    """Return p, or the corrected one; with ≤ where p is the smallest possible."""
    return ("≤ " if p <= FLOOR else "") + f"{p if corrected is None else corrected:.2g}"
