"""Paired bootstrap against the t test and SciPy's bootstrap, Holm by hand, and the declared comparisons."""

import numpy as np
import pytest
from shop import tastes, toy

from alignrec.pipeline.evaluation.benchmark import significance
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel
from alignrec.pipeline.evaluation.benchmark.settings import protocol_of
from alignrec.pipeline.evaluation.statistics import holm, paired_bootstrap


def test_bootstrap_agrees_with_the_t_test_and_with_scipys_interval() -> None:
    from scipy import stats

    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 3))
    y = rng.normal((0.0, 0.1, 0.4), size=(300, 3))
    for i, test in enumerate(paired_bootstrap(x, y, seed=0)):
        student = stats.ttest_rel(x[:, i], y[:, i])
        assert test.p == pytest.approx(student.pvalue, abs=0.015)
        theirs = stats.bootstrap((x[:, i] - y[:, i],), np.mean, method="percentile", rng=1).confidence_interval
        assert (test.low, test.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
        assert test.difference == pytest.approx(test.mean_a - test.mean_b)


def test_equal_runs_differ_by_nothing_and_unequal_ones_by_all() -> None:
    x = np.random.default_rng(0).random((50, 1))
    (same,) = paired_bootstrap(x, x, seed=0)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    (more,) = paired_bootstrap(x + 1, x, seed=0, resamples=99)
    assert (more.n, more.p) == (50, 0.01)


def test_draws_are_resampled_as_users_are() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 5, 1))
    x[rng.random(x.shape) < 0.5] = np.nan  # a user with a target in every other draw
    (one,) = paired_bootstrap(x, x * 0, seed=0)
    by_draw = np.nanmean(x, axis=0)[:, 0]
    assert one.mean_a == pytest.approx(by_draw.mean())
    moved = x + 3 * np.arange(5)[:, None]  # draws that differ by far more than users do
    (wide,) = paired_bootstrap(moved, moved * 0, seed=0)
    again = np.random.default_rng(1).choice(np.nanmean(moved, axis=0)[:, 0], size=(9999, 5)).mean(1)
    assert (wide.low, wide.high) == pytest.approx(tuple(np.quantile(again, [0.025, 0.975])), abs=0.3)
    assert wide.high - wide.low > 5 * (one.high - one.low)
    single = rng.random((50, 2))
    assert paired_bootstrap(single[:, None], single[:, None] * 0, seed=3) == paired_bootstrap(
        single, single * 0, seed=3
    )


def test_holm_by_hand() -> None:
    # 3 x .01, 2 x .02, and 1 x .03, which may not be smaller than the one before
    assert holm(np.array([0.03, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.5, 0.9])).tolist() == [1, 1]


def test_comparisons_are_declared_by_what_they_have_in_common() -> None:
    jobs = [CellLabel("bpr", "none", 0), CellLabel("vbpr", "f", 0), CellLabel("vbpr", "g", 0)]
    jobs += [CellLabel("alignrec", f, s) for f in "fg" for s in (0, 1)] + [CellLabel("alignrec", "f", 0, "no-cca")]
    pairs = {(*a[:2], a.ablation, *b[:2], b.ablation) for a, b in significance.declare_pairs(jobs, "f")}
    ours = {f: ("alignrec", f, "") for f in "fg"}
    rivals = {(*ours[f], *other, "") for f in "fg" for other in (("bpr", "none"), ("vbpr", f))}
    assert pairs == rivals | {(*ours["f"], *ours["g"]), (*ours["f"], "alignrec", "f", "no-cca")}


def test_with_a_control_every_model_is_tested_against_itself_on_it() -> None:
    jobs = [CellLabel(model, f, 0) for model in ("vbpr", "alignrec") for f in ("f", "g", "shuffled")]
    pairs, without = (significance.declare_pairs(jobs, "f", control) for control in ("shuffled", None))
    added = [(*a[:2], *b[:2]) for a, b in pairs if (a, b) not in without]
    # that of AlignRec on f is declared already
    assert added == [(model, f, model, "shuffled") for model, f in (("vbpr", "f"), ("vbpr", "g"), ("alignrec", "g"))]
    assert len(pairs) == len(set(pairs)) == len(without) + 3


def test_a_users_figure_is_averaged_over_the_seeds_that_both_runs_have() -> None:
    runs = {
        CellLabel("alignrec", "f", 0): [0.2, 0.4],
        CellLabel("alignrec", "f", 1): [0.4, 0.6],
        CellLabel("bpr", "none", 0): [0.1, 0.1],
        CellLabel("bpr", "none", 1): [0.3, 0.1],
        CellLabel("alignrec", "f", 0, "no-cca"): [0.0, 0.4],
    }
    per_user = {job: dict.fromkeys(significance.TESTED_METRICS, np.array(v)) for job, v in runs.items()}
    named = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "1"}
    bpr, _, ablated, _ = significance.paired_tests([(named, per_user)], "f", 20, None, 1).to_pylist()
    assert (bpr["seeds"], bpr["mean_a"], bpr["mean_b"]) == (2, pytest.approx(0.4), pytest.approx(0.15))
    assert (ablated["seeds"], ablated["difference"]) == (1, pytest.approx(0.1))
    assert ablated["ablation_b"] == "no-cca"


# --- the protocol names how ratings were filtered and split; by default its fingerprint is unchanged


CORES = "users >= 5, items >= 5, repeatedly"


def test_a_least_rating_is_part_of_the_filter_and_of_the_fingerprint() -> None:
    parts = tastes.two_tastes()
    rules = [protocol_of(toy.params(interactions={"min_rating": low}), "shop", parts) for low in (None, 3, 4, 4.5)]
    assert [r.filter for r in rules[1:]] == [f"ratings >= {low}, {CORES}" for low in ("3", "4", "4.5")]
    assert len({r.fingerprint for r in rules}) == 4
