"""The benchmark as tables and charts: results, paired tests, ablations, slices."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.cutoff import CUTOFF, headline
from pipeline.evaluation.evidence import HEADLINE, MAIN, Comparison, candidates, comparisons, masked_splits
from pipeline.report import plots
from pipeline.report.markdown import figure
from pipeline.report.tables import CONTROLS, Table, metric_name

LINES = 4
"""runs that a chart shows, best Recall@20 first"""
SURE = 0.05

Sliced = dict[tuple[str, str], dict[tuple[str, str, str], tuple[int, float | None]]]
"""(model, features) -> (slice, label, metric) -> n, and the mean over seeds (None where n is 0)"""


def name(model: str, features: str, ablation: str = "") -> str:
    """Return the name of a run, for one cell."""
    content = "" if features == "none" else f" on {features}"
    return f"{model}{content}" + (f", {ablation}" if ablation else "")


def results(comparison: Comparison) -> Table:
    """Return the headline comparison under one protocol, with the range of the seeds beside each row."""
    best = set()
    for column, key in enumerate(HEADLINE):
        means = [r.cells[key].mean if key in r.cells else -1.0 for r in comparison.rows]
        best.add((means.index(max(means)), 3 + column))
    cells = [r.cells.get(MAIN) for r in comparison.rows]
    spans = [None if c is None else (min(c.values), c.mean, max(c.values)) for c in cells]
    return Table(
        "Recommenders on these features",
        f"Protocol {comparison.protocol}, fingerprint {comparison.fingerprint}. Test figures at the best valid "
        f"epoch; mean ± standard deviation over seeds; {candidates(comparison)} ranked, "
        f"{masked_splits(comparison)} items masked. The bar spans the seeds' Recall@20, from 0.",
        ["model", "features", "seeds", *(f"{metric_name(m)}@{k}" for m, k in HEADLINE)],
        [[r.model, r.features, str(r.seeds), *(figure(r.cells.get(key)) for key in HEADLINE)] for r in comparison.rows],
        texts=2,
        best=frozenset(best),
        bars=plots.bars(spans),
    )


def tests(paired: pa.Table) -> Iterable[Table]:
    """Yield the paired tests of table TESTS, a table for each fingerprint and metric; without ablations."""
    groups = paired.group_by(["protocol", "fingerprint", "metric", "k"]).aggregate([]).sort_by("metric").to_pylist()
    several = len({group["fingerprint"] for group in groups}) > 1
    for group in sorted(groups, key=lambda g: (g["metric"] != MAIN[0], g["protocol"])):
        rows = paired.filter(_equal(group | {"ablation_a": "", "ablation_b": ""})).to_pylist()
        if not rows:  # one run and its ablations alone
            continue
        what = f"{metric_name(group['metric'])}@{group['k']}"
        yield Table(
            f"Differences in {what}" + (f", protocol {group['protocol']}" if several else ""),
            "a - b on test: each user's figure is averaged over the seeds of both, then users are paired. The "
            f"interval is of {rows[0]['n']:,} users resampled (95 %); p is corrected for all {len(paired)} comparisons "
            f"together, those with ablations too (Holm). Differences with p below {SURE} are marked.",
            ["a", "b", "a - b", "95 % interval", "p"],
            [
                [_side(r, "a"), _side(r, "b"), f"{r['difference']:+.4f}", f"{r['low']:+.4f} .. {r['high']:+.4f}",
                 f"{r['p_holm']:.2g}"]
                for r in rows
            ],
            texts=2,
            best=frozenset((i, 2) for i, r in enumerate(rows) if r["p_holm"] < SURE),
            bars=plots.bars([(r["low"], r["difference"], r["high"]) for r in rows]),
        )  # fmt: skip


def ablations(comparison: Comparison, paired: pa.Table | None) -> Table:
    """Return each ablation, and its change against the full model.

    Args:
        comparison: the ablations and the full models.
        paired: table TESTS, where the full model is tested against each ablation.
    """
    wanted = _equal({"fingerprint": comparison.fingerprint, "metric": MAIN[0], "ablation_a": ""})
    tests = [] if paired is None else paired.filter(wanted & (pc.field("ablation_b") != "")).to_pylist()
    tested = {(t["model_b"], t["features_b"], t["ablation_b"]): t for t in tests}
    full = {(t["model_a"], t["features_a"]) for t in tests}
    whole = [r for r in comparison.rows if not r.ablation and (r.model, r.features) in full]
    rows, spans, repeated = [], [], []
    for run in whole + [r for r in comparison.rows if r.ablation]:
        test = tested.get((run.model, run.features, run.ablation))
        span = None if test is None else (0 - test["high"], 0 - test["difference"], 0 - test["low"])
        change, interval = ("", "") if span is None else (f"{span[1]:+.4f}", f"{span[0]:+.4f} .. {span[2]:+.4f}")
        p = "" if test is None else f"{test['p_holm']:.2g}"
        figures = [figure(run.cells.get(key)) for key in (MAIN, ("ndcg", CUTOFF))]
        if run.ablation and any(run.repeats(other) for other in whole):
            span, change, interval, p = None, "none", "identical", ""
            repeated.append(run.ablation)
        content = "" if run.ablation and (run.model, run.features) in full else f" ({run.features})"
        rows.append([f"{run.ablation or 'full model'}{content}", str(run.seeds), *figures, change, interval, p])
        spans.append(span)
    return Table(
        "Without one part, or with one modality",
        "Each row differs from the full model in what its name says. Test figures, mean ± standard deviation over "
        "seeds; the change in Recall@20 and its 95 % interval are over users, on the seeds of both; p is Holm's."
        + _nothing_to_undo(repeated),
        ["ablation", "seeds", "Recall@20", "NDCG@20", "change", "95 % interval", "p"],
        rows,
        best=frozenset((i, 4) for i, r in enumerate(rows) if r[6] and float(r[6]) < SURE),
        bars=plots.bars(spans),
    )


def _nothing_to_undo(names: Sequence[str]) -> str:
    """Return why some ablations are no evidence; nothing without such."""
    if not names:
        return ""
    return (
        f" Identical to the full model in every figure of every seed: {', '.join(names)}. What they change has nothing "
        "to act on under these settings."
    )


def tuned(tuning: pa.Table) -> Table:
    """Return how many settings each model tried on each feature set, the chosen one, and valid figures.

    Args:
        tuning: table TUNING.
    """
    contenders: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in tuning.to_pylist():
        contenders.setdefault((row["model"], row["features"]), []).append(row)
    rows = []
    for (model, features), tried in contenders.items():
        chosen = next(row for row in tried if row["chosen"])
        setting = ", ".join(f"{key} {value:g}" for key, value in json.loads(chosen["setting"]).items())
        words = setting if chosen["trial"] else f"{setting} (as given)"
        failed = sum(row["state"] == "failed" for row in tried)
        given, best = (_text((1, row["valid"])) for row in (tried[0], chosen))
        rows.append([name(model, features), words, str(len(tried)), str(failed), given, best])
    return Table(
        "Settings tried and chosen",
        "A model tries the same settings on every feature set, one training each; the first is the setting as given. "
        f"The best valid Recall@{CUTOFF} is chosen before test is opened.",
        ["run", "chosen setting", "tried", "failed", "valid, as given", "valid, chosen"],
        rows,
        texts=2,
    )


def winners(where: str, results: pa.Table) -> Table:
    """Return the test figures of a sweep's winning settings, by what selected them, from table RESULTS."""
    chosen = {"valid": "valid", "test": "test, as published tables do"}
    keys = (MAIN, ("ndcg", MAIN[1]))
    rows = [
        [
            f"{words}; {judged.protocol}" if len(both) > 1 else words,
            str(run.seeds),
            *(figure(run.cells.get(key)) for key in keys),
        ]
        for by, words in chosen.items()
        for both in [comparisons(results, by)]
        for judged in both
        for run in judged.rows
    ]
    return Table(
        f"{where}: the setting that won",
        "Test figures of new trainings, mean ± standard deviation over seeds, by what chose the setting.",
        ["chosen by", "seeds", *(f"{metric_name(m)}@{k}" for m, k in keys)],
        rows,
    )


def cutoff(slices: pa.Table) -> int:
    """Return the cutoff of the slices' tables: 20, or the largest."""
    return headline(pc.unique(slices["k"]).to_pylist())


def sliced(slices: pa.Table, judged: Comparison, k: int) -> Sliced:
    """Return the figures of table SLICES at a cutoff, in the comparison's order, without controls and ablations."""
    kept = slices.filter(_equal({"fingerprint": judged.fingerprint, "ablation": "", "k": k}))
    seeds: dict[tuple[str, str], dict[tuple[str, str, str], list[tuple[int, float | None]]]] = {
        (r.model, r.features): {} for r in judged.rows if r.features not in CONTROLS
    }
    for row in kept.to_pylist():  # some dozens a run
        if (row["model"], row["features"]) in seeds:
            cells = seeds[row["model"], row["features"]]
            cells.setdefault((row["slice"], row["label"], row["metric"]), []).append((row["n"], row["value"]))
    return {run: {key: (v[0][0], _mean([x for _, x in v])) for key, v in cells.items()} for run, cells in seeds.items()}


def slice_table(slices: Sliced, which: str, metric: str, heading: str, note: str, of: str) -> Table | None:
    """Return runs x labels of one slice, its sizes in the first row; None without figures.

    Args:
        slices: see `sliced`.
        which: the slice.
        metric: the figure in the cells.
        heading: of the table.
        note: below it.
        of: what the sizes count.
    """
    labels = _labels(slices, which, metric)
    if not labels:
        return None
    any_run = next(cells for cells in slices.values() if cells)
    sizes = [f"{any_run[which, label, metric][0]:,}" for label in labels]
    rows = [[name(*run), *(_text(c.get((which, label, metric))) for label in labels)] for run, c in slices.items() if c]
    return Table(heading, note, ["run", *labels], [[of, *sizes], *rows])


def slice_chart(slices: Sliced, which: str, metric: str, title: str) -> plots.Chart | None:
    """Return the best runs over the labels of a slice as lines."""
    labels = _labels(slices, which, metric)
    runs = [(run, cells) for run, cells in slices.items() if cells][:LINES]
    values = {name(*run): [cells.get((which, x, metric), (0, None))[1] for x in labels] for run, cells in runs}
    if len(labels) < 2 or not any(v is not None for line in values.values() for v in line):
        return None
    return plots.across(title, labels, values)


def catalogue(slices: Sliced, k: int) -> Table | None:
    """Return coverage, novelty and exposure of the top K."""
    head = ["run", "coverage", "novelty, bits", "exposure: top tenth", "exposure: lower half"]
    rows = []
    for run, cells in slices.items():
        if ("catalogue", "all", "coverage") in cells:
            exposed = [cells.get(("popularity", str(part), "exposure"), (0, None))[1] or 0.0 for part in range(11)]
            rows.append([
                name(*run), f"{cells['catalogue', 'all', 'coverage'][1]:.1%}",
                _text(cells.get(("catalogue", "all", "novelty")), 2), f"{exposed[10]:.1%}", f"{sum(exposed[1:6]):.1%}",
            ])  # fmt: skip
    note = (
        f"Of the top {k} of all test users. Coverage: share of the catalogue that is recommended. Novelty: mean of "
        "-log2(share of users who have the item). Exposure: share of places of the tenth of items with the most "
        "train interactions, and of the half with the fewest."
    )
    return Table("What is recommended", note, head, rows) if rows else None


def _labels(slices: Sliced, which: str, metric: str) -> list[str]:
    """Return the labels of a slice that are not empty, in the order of the table."""
    cells = next((c for c in slices.values() if c), {})
    return [label for (kind, label, m), (n, _) in cells.items() if kind == which and m == metric and n]


def _equal(wanted: dict[str, Any]) -> pc.Expression:
    condition = pc.scalar(True)
    for column, value in wanted.items():
        condition = condition & (pc.field(column) == value)
    return condition


def _side(row: dict[str, Any], side: str) -> str:
    return name(*(row[f"{column}_{side}"] for column in ("model", "features", "ablation")))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _text(cell: tuple[int, float | None] | None, decimals: int = 4) -> str:
    return "" if cell is None or cell[1] is None else f"{cell[1]:.{decimals}f}"
