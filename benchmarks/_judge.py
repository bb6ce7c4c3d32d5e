"""What probes are worth: how well the order in which each puts feature sets predicts that of trained recommenders.

Letters: n feature sets, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.stats import rankdata

import schemas
from pipeline import io
from pipeline.benchmark.runs import NO_FEATURES
from pipeline.evaluation.evidence import MAIN, comparisons
from pipeline.facts import probes
from pipeline.facts.table import Table
from pipeline.facts.words import CONTROLS, title
from pipeline.layout import Layout
from pipeline.seeds import seed_for

RESAMPLES = 1_999
UNTRAINED = "beit3-untrained"
LEAST = 4
"""feature sets of which there is a correlation"""


def table(layout: Layout) -> Table:
    """Return Spearman's correlation of every probe's raw headline figure with test Recall@20 of every recommender.

    Columns: of all sets, with its interval over feature sets drawn with replacement, and of real content only.
    """
    found = probes.read(io.read_json(layout.probes))
    trained: dict[str, dict[str, float]] = {}
    for row in comparisons(io.read_table(layout.results, schemas.RESULTS))[0].rows:
        if row.features != NO_FEATURES:
            trained.setdefault(row.model, {})[row.features] = row.cells[MAIN].mean
    cells = {
        probe.name: [cell for recall in trained.values() for cell in _cells(probe.of("raw", probe.figure), recall)]
        for probe in found.values()
        if probe.forms  # it was asked
    }
    rows = [[name, *own] for name, own in cells.items() if any(own)]
    heads = [f"{title(model)}, {which}" for model in trained for which in ("all sets", "content only")]
    names = ", ".join(sorted({name for recall in trained.values() for name in recall}))
    note = f"Spearman's correlation over {names}; 95 % interval of {RESAMPLES:,} resamples of all sets."
    return Table("What the probes predict", note, ["probe", *heads], rows)


def _cells(figures: Mapping[str, float], recall: Mapping[str, float]) -> Iterator[str]:
    shared = [name for name in figures if name in recall]
    for names in (shared, [name for name in shared if name not in (*CONTROLS, UNTRAINED)]):
        x, y = (np.array([of[name] for name in names]) for of in (figures, recall))
        form = "{:.2f} ({:.2f} to {:.2f})" if names is shared else "{:.2f}"
        yield form.format(*correlation(x, y)) if len(names) >= LEAST else ""


def correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return Spearman's correlation and its 95 % percentile interval; x and y are float64 [n]."""
    drawn = np.random.default_rng(seed_for("judge")).integers(len(x), size=(RESAMPLES, len(x)))
    rows = np.concatenate([np.arange(len(x))[None], drawn])  # [1 + R, n]
    a, b = (rankdata(values[rows], axis=1) for values in (x, y))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a resample of equal values has none
        all_of_them = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    low, high = np.nanquantile(all_of_them[1:], [0.025, 0.975])
    return float(all_of_them[0]), float(low), float(high)
