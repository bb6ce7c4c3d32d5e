"""The long tail: items shown and users served, by popularity of items and length of histories."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.cutoff import CUTOFF, headline
from pipeline.evaluation.evidence import Comparison, collect, seeds_of
from pipeline.evaluation.statistics import LEVEL
from pipeline.report import words
from pipeline.report.difference import Difference
from pipeline.report.recommenders import equal
from pipeline.report.table import Table
from pipeline.report.words import CONTROLS

CHOSEN = "what users chose in test"
TAIL = "less popular half"
PARTS = {
    "cold items": ("cold",),
    TAIL: ("1", "2", "3", "4", "5"),
    "next four tenths": ("6", "7", "8", "9"),
    "most popular tenth": ("10",),
}
SLICES = {
    "popularity": "Targets by popularity of the item in train: tenths from the least (1) to the most popular (10), or "
    "thirds where a tenth has few targets; cold items have no train interaction.",
    "history": "Test users by the number of their train interactions.",
}
OF = {"popularity": "targets", "history": "users"}

Row = Mapping[str, Any]
Run = tuple[str, str]  # model, features
Sliced = dict[Run, dict[tuple[str, str, str], tuple[int, float | None]]]
"""run -> (slice, label, metric) -> n, and the mean over seeds (None where n is 0)"""
Groups = Mapping[Run, Mapping[str, tuple[float, float, float]]]  # run -> label of a group -> low end, mean, high end
Shown = Mapping[str, Mapping[str, float]]
"""run, or CHOSEN -> part of the catalogue -> its share of the places, or of the test targets"""


def sliced(slices: pa.Table | None, judged: Comparison) -> tuple[int, Sliced]:
    """Return the headline cutoff of table SLICES, and its figures there, without controls and ablations."""
    if slices is None or not len(slices):
        return CUTOFF, {}
    k = headline(pc.unique(slices["k"]).to_pylist())
    kept = slices.filter(equal({"fingerprint": judged.fingerprint, "ablation": "", "k": k}))
    by_run = collect(((row["model"], row["features"]), row) for row in kept.to_pylist())
    figures: Sliced = {}
    for run in ((r.model, r.features) for r in judged.rows if r.features not in CONTROLS):
        rows = by_run.get(run, [])  # some dozens
        seeds = collect(((r["slice"], r["label"], r["metric"]), (r["n"], r["value"])) for r in rows)
        figures[run] = {key: (v[0][0], _mean([x for _, x in v])) for key, v in seeds.items()}
    return k, figures


def shown(slices: Sliced) -> Shown:
    """Return each part's share of the places and of the test targets, without parts that are empty everywhere."""
    shares = {}
    for run, cells in slices.items():
        exposed = {label: value or 0.0 for (_, label, metric), (_, value) in cells.items() if metric == "exposure"}
        if exposed:
            shares[words.run(*run)] = _parts(exposed)
    if not shares:
        return {}
    cells = next(cells for cells in slices.values() if cells)
    targets = {
        label: n for (kind, label, metric), (n, _) in cells.items() if (kind, metric) == ("popularity", "recall")
    }
    whole = max(sum(targets.values()), 1)
    every = {CHOSEN: {part: n / whole for part, n in _parts(targets).items()}} | shares
    kept = [part for part in PARTS if any(of[part] for of in every.values())]
    return {run: {part: of[part] for part in kept} for run, of in every.items()}


def in_words(who: Shown, ours: str) -> list[str]:
    """Return the tail's share of test, of our lists and of the lists that show it least; nothing without all three."""
    shares = {run: of[TAIL] for run, of in who.items() if TAIL in of}
    chosen = shares.pop(CHOSEN, 0.0)
    least = min(shares, key=lambda run: shares[run], default=ours)
    if ours not in shares or least == ours:
        return []
    return [
        f"The {TAIL} of the items has {chosen:.0%} of what users chose in test, {shares[ours]:.0%} of what {ours} "
        f"shows, and {shares[least]:.0%} of what {least} shows."
    ]


def by_study(tail: pa.Table, comparison: Comparison, which: str) -> Groups:
    rows = tail.filter(equal({"fingerprint": comparison.fingerprint, "slice": which})).to_pylist()
    groups: dict[Run, dict[str, tuple[float, float, float]]] = {(r.model, r.features): {} for r in comparison.rows}
    for row in rows:
        span = row["mean_low"], row["mean"], row["mean_high"]
        groups.setdefault((row["model"], row["features"]), {})[row["label"]] = span
    return {run: spans for run, spans in groups.items() if spans}


def by_slices(slices: Sliced, which: str) -> Groups:
    return {
        run: {label: (value, value, value) for (kind, label, metric), (_, value) in cells.items()
              if (kind, metric) == (which, "recall") and value is not None}
        for run, cells in slices.items() if cells
    }  # fmt: skip


def means(slices: Sliced, which: str, k: int) -> Iterator[Table]:
    any_run = next((cells for cells in slices.values() if cells), {})
    labels = [label for (kind, label, metric), (n, _) in any_run.items() if (kind, metric) == (which, "recall") and n]
    if labels:
        sizes = [OF[which], *(f"{any_run[which, label, 'recall'][0]:,}" for label in labels)]
        cells = {run: [_text(c.get((which, label, "recall"))) for label in labels] for run, c in slices.items() if c}
        rows = [[words.run(*run), *texts] for run, texts in cells.items()]
        yield Table(f"Recall@{k} by {which}", f"{SLICES[which]} Means over seeds.", ["run", *labels], [sizes, *rows])


def catalogue(slices: Sliced, k: int) -> Iterator[Table]:
    head = ["run", "coverage", "Gini", "novelty, bits", "exposure: top tenth", "exposure: lower half"]
    rows = []
    for run, cells in slices.items():
        if ("catalogue", "all", "coverage") in cells:
            exposed = [cells.get(("popularity", str(part), "exposure"), (0, None))[1] or 0.0 for part in range(11)]
            rows.append([
                words.run(*run), f"{cells['catalogue', 'all', 'coverage'][1]:.1%}",
                _text(cells.get(("catalogue", "all", "gini")), 3),
                _text(cells.get(("catalogue", "all", "novelty")), 2), f"{exposed[10]:.1%}", f"{sum(exposed[1:6]):.1%}",
            ])  # fmt: skip
    note = (
        f"Of the top {k} of all test users, means over seeds. Coverage: share of the catalogue that is recommended. "
        "Gini: of how often each item is recommended, 0 if all alike. "
        "Novelty: mean of -log2(share of users who have the item). Exposure: share of places of the tenth of items "
        "with the most train interactions, and of the half with the fewest."
    )
    if rows:
        yield Table("What is recommended", note, head, rows)


def parts(tail: pa.Table) -> list[list[Row]]:
    found = collect(((row["fingerprint"], row["slice"]), row) for row in tail.to_pylist())
    return [[row for row in rows if row["features"] not in CONTROLS] for rows in found.values()]


def tails(tail: pa.Table) -> list[Table]:
    found = [rows for rows in parts(tail) if rows]
    several = len({rows[0]["protocol"] for rows in found}) > 1
    return [table.under(rows[0]["protocol"] if several else "") for rows in found for table in _tails(rows)]


def _tails(rows: Sequence[Row]) -> Iterator[Table]:
    which = rows[0]["slice"]
    note = (
        f"{words.protocol(rows[0])} {SLICES[which]} Mean over "
        f"{seeds_of(row['seeds'] for row in rows)}; 95 % intervals of the bootstrap."
    )
    yield by_group(f"Recall@{rows[0]['k']} by {which}", note, rows, _mean_of, marked=False)
    if tested := [row for row in rows if row["difference"] is not None]:
        note += (
            " AlignRec's lead on the released features over each other run; marked where p is below "
            f"{LEVEL} after Holm's correction for all of these tests."
        )
        yield by_group(f"AlignRec's lead by {which}", note, tested, _lead)


def _mean_of(row: Row) -> str:
    return f"{row['mean']:.4f} ({row['mean_low']:.4f} .. {row['mean_high']:.4f})"


def _lead(row: Row) -> str:
    return f"{row['difference']:+.4f} ({row['low']:+.4f} .. {row['high']:+.4f})"


def by_group(heading: str, note: str, rows: Sequence[Row], text: Callable[[Row], str], marked: bool = True) -> Table:
    labels = list(dict.fromkeys(row["label"] for row in rows))
    runs = list(dict.fromkeys((row["model"], row["features"]) for row in rows))
    at = {(runs.index((row["model"], row["features"])), labels.index(row["label"])): row for row in rows}
    marks = {
        (1 + r, 1 + c): test.mark
        for (r, c), row in at.items() if marked and (test := Difference.if_any(row)) and test.sure
    }  # fmt: skip
    sizes = {row["label"]: f"{row['n']:,}" for row in rows}
    cells = [[text(at[r, c]) if (r, c) in at else "" for c in range(len(labels))] for r in range(len(runs))]
    named = [[words.run(*run), *texts] for run, texts in zip(runs, cells, strict=True)]
    return Table(heading, note, ["run", *labels], [["n", *(sizes[x] for x in labels)], *named], marks=marks)


def _parts(of: Mapping[str, float]) -> dict[str, float]:
    return {part: sum(of.get(label, 0.0) for label in labels) for part, labels in PARTS.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _text(cell: tuple[int, float | None] | None, decimals: int = 4) -> str:
    return "" if cell is None or cell[1] is None else f"{cell[1]:.{decimals}f}"
