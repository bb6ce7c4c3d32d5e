"""Significance of differences: paired bootstrap, Holm's correction. N users, D draws, C comparisons, R resamples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 9_999
FLOOR = 1 / (RESAMPLES + 1)  # smallest possible p before correction
LEVEL = 0.05  # significance level after correction
AT_ONCE = 1 << 22  # users drawn per step; bounds memory without changing resamples


class Paired(NamedTuple):
    """Paired test of two runs on the same users or items."""

    n: int
    mean_a: float
    mean_b: float
    difference: float  # a - b
    low: float  # 95 % percentile interval of the difference
    high: float
    p: float  # two-sided; null hypothesis: no difference


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> list[Paired]:
    """Test C comparisons over N users, or users and draws of a split, by a bootstrap on common resamples.

    The interval is the 95 % percentile interval of the mean difference; p is the share of resamples, the sample
    included, whose mean is at least as far from the sample's as that is from zero.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    differences = a - b
    centre = mean_over_draws(differences)
    means = resample_means(differences, resamples, seed)  # [R, C]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    far = (
        np.abs(means - centre) >= np.abs(centre) - 1e-12
    )  # the tolerance also counts ties, as between equal runs
    p = (1 + far.sum(0)) / (resamples + 1)
    columns = (mean_over_draws(a), mean_over_draws(b), centre, low, high, p)
    return [Paired(len(a), *(float(v) for v in row)) for row in zip(*columns, strict=True)]


def mean_over_draws(values: np.ndarray) -> np.ndarray:
    """Return the mean of [N, C] over users, or of [N, D, C] over users, then draws: float64 [C]."""
    means: np.ndarray = values.mean(0) if values.ndim == 2 else np.nanmean(values, axis=0).mean(0)
    return means


def resample_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return `mean_over_draws` over resampled users and draws, float64 [R, C]; NaN marks users without target."""
    if values.ndim == 2:
        values = values[:, None]
    n, draws, columns = values.shape
    known = (~np.isnan(values[:, :, 0])).astype(np.float64)  # [N, D]
    flat = np.nan_to_num(values).reshape(n, -1)
    rng, of_draws = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    means = []
    step = max(1, AT_ONCE // n)
    for at in range(0, resamples, step):
        rows = min(step, resamples - at)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(
            rows, n
        )  # how often each user was drawn
        by_draw = (counts @ flat).reshape(rows, draws, columns) / np.maximum(1, counts @ known)[
            :, :, None
        ]
        chosen = of_draws.integers(draws, size=(rows, draws))
        means.append(np.take_along_axis(by_draw, chosen[:, :, None], axis=1).mean(1))
    return np.concatenate(means)


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for multiple comparisons (Holm 1979), same shape, at most 1."""
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def corrected_tests(
    comparisons: Sequence[tuple[str, str, str, np.ndarray, np.ndarray]], seed: int
) -> list[dict[str, Any]]:
    """Test comparisons (measure, a, b, figures of a, of b: float64 [N] or [N, D]), corrected for all of them."""
    by_shape: dict[tuple[int, ...], list[int]] = {}  # comparisons of equal shape share resamples
    for i, (*_, x, _y) in enumerate(comparisons):
        by_shape.setdefault(x.shape, []).append(i)
    tests: dict[int, Paired] = {}
    for numbers in by_shape.values():
        x, y = (np.stack([comparisons[i][side] for i in numbers], axis=-1) for side in (3, 4))
        tests |= dict(zip(numbers, paired_bootstrap(x, y, seed), strict=True))
    ordered = [tests[i] for i in range(len(comparisons))]
    p_holm = holm(np.array([test.p for test in ordered]))
    return [
        {"measure": measure, "a": a, "b": b, **test._asdict(), "p_holm": float(p)}
        for (measure, a, b, *_), test, p in zip(comparisons, ordered, p_holm, strict=True)
    ]


def agreed_verdict(tests: Sequence[Mapping[str, Any]]) -> str:
    """Return `better` or `worse` if all tests of a - b are significant and agree, otherwise `undecided`."""
    signs = {int(np.sign(test["difference"])) if test["p_holm"] < LEVEL else 0 for test in tests}
    return (
        {1: "better", -1: "worse"}.get(signs.pop(), "undecided") if len(signs) == 1 else "undecided"
    )
