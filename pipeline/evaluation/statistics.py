"""Significance of differences: paired bootstrap, Holm's correction.

N users, D draws, C comparisons, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 9_999
FLOOR = 1 / (RESAMPLES + 1)  # smallest possible p before correction
LEVEL = 0.05  # significance level after correction
DRAWS_PER_STEP = 1 << 22  # users drawn; bounds memory without changing resamples
TIE_TOLERANCE = 1e-12  # also counts ties, as between equal runs


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
    """Test C comparisons over N users, or users and draws of a split, on common resamples.

    The interval is the 95 % percentile interval of the mean difference; p is the share of
    resamples, the sample included, whose mean is at least as far from the sample's as that is from
    zero.
    """
    a = np.asarray(a, np.float64)
    b = np.asarray(b, np.float64)
    differences = a - b
    centre = mean_over_draws(differences)
    means = resample_means(differences, resamples, seed)  # [R, C]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    distance = np.abs(means - centre)
    is_far = distance >= np.abs(centre) - TIE_TOLERANCE
    p = (1 + is_far.sum(0)) / (resamples + 1)

    columns = (mean_over_draws(a), mean_over_draws(b), centre, low, high, p)
    rows = np.stack(columns, axis=1).tolist()
    return [Paired(len(a), *row) for row in rows]


def mean_over_draws(values: np.ndarray) -> np.ndarray:
    """Return the mean of [N, C] over users, or of [N, D, C] over users, then draws: float64 [C]."""
    if values.ndim == 2:
        return np.asarray(values.mean(0))
    return np.asarray(np.nanmean(values, axis=0).mean(0))


def resample_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return `mean_over_draws` over resampled users and draws, float64 [R, C].

    NaN marks users without target.
    """
    if values.ndim == 2:
        values = values[:, None]
    n, draws, columns = values.shape
    has_target = (~np.isnan(values[:, :, 0])).astype(np.float64)  # [N, D]
    flat = np.nan_to_num(values).reshape(n, -1)
    user_rng = np.random.default_rng(seed)
    draw_rng = np.random.default_rng([seed, 1])

    means = []
    resamples_per_step = max(1, DRAWS_PER_STEP // n)
    for start in range(0, resamples, resamples_per_step):
        rows = min(resamples_per_step, resamples - start)
        first_of_row = n * np.arange(rows)[:, None]
        drawn = user_rng.integers(n, size=(rows, n)) + first_of_row
        # how often each user was drawn
        counts = np.bincount(drawn.ravel(), minlength=rows * n)
        counts = counts.reshape(rows, n)
        sums = (counts @ flat).reshape(rows, draws, columns)
        users_with_target = np.maximum(1, counts @ has_target)  # [rows, D]
        by_draw = sums / users_with_target[:, :, None]

        chosen = draw_rng.integers(draws, size=(rows, draws))
        by_chosen_draw = np.take_along_axis(by_draw, chosen[:, :, None], axis=1)
        means.append(by_chosen_draw.mean(1))
    return np.concatenate(means)


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for multiple comparisons (Holm 1979), same shape, at most 1."""
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    n_remaining = np.arange(len(p), 0, -1)
    stepped = np.maximum.accumulate(p[order] * n_remaining)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def corrected_tests(
    comparisons: Sequence[tuple[str, str, str, np.ndarray, np.ndarray]], seed: int
) -> list[dict[str, Any]]:
    """Test comparisons, corrected for all of them.

    A comparison is (measure, a, b, figures of a, figures of b), figures float64 [N] or [N, D].
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}  # comparisons of equal shape share resamples
    for number, comparison in enumerate(comparisons):
        by_shape.setdefault(comparison[3].shape, []).append(number)

    tests: dict[int, Paired] = {}
    for numbers in by_shape.values():
        a = np.stack([comparisons[number][3] for number in numbers], axis=-1)
        b = np.stack([comparisons[number][4] for number in numbers], axis=-1)
        tests |= dict(zip(numbers, paired_bootstrap(a, b, seed), strict=True))

    p_holm = holm(np.array([tests[number].p for number in range(len(comparisons))]))
    rows = []
    for number, (measure, name_a, name_b, *_) in enumerate(comparisons):
        row = {"measure": measure, "a": name_a, "b": name_b, **tests[number]._asdict()}
        rows.append(row | {"p_holm": float(p_holm[number])})
    return rows


def agreed_verdict(tests: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdict of tests of a - b: `better` or `worse` if all are significant and agree.

    Otherwise `undecided`.
    """
    signs = set()
    for test in tests:
        is_significant = test["p_holm"] < LEVEL
        signs.add(int(np.sign(test["difference"])) if is_significant else 0)
    verdicts = {frozenset({1}): "better", frozenset({-1}): "worse"}
    return verdicts.get(frozenset(signs), "undecided")
