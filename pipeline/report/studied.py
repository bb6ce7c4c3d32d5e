"""The study as tables and charts: mask modality, the long tail, arms of pre-training, sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.evaluation.cutoff import CUTOFF, headline
from pipeline.evaluation.evidence import Cell
from pipeline.params import RELEASED
from pipeline.probe.registry import PROBES
from pipeline.report import judged, markdown, plots, sequenced, tables
from pipeline.report.judged import SURE
from pipeline.report.plots import Chart
from pipeline.report.tables import CONTROLS, Table
from pipeline.study import summaries
from pipeline.study.summaries import RECALL, Masked

Study = Mapping[str, pa.Table]
"""part -> its table; a part that is not there was not studied"""
SLICES = {
    "popularity": "Targets by popularity of the item in train: tenths from the least (1) to the most popular (10), or "
    "thirds where a tenth has few targets; cold items have no train interaction.",
    "history": "Test users by the number of their train interactions.",
}
"""slice -> what its groups are"""


def masked(mask: pa.Table) -> list[Table]:
    """Return table MASK over its seeds, a table a protocol; none for an empty one."""
    return [
        Table(
            "Mask modality",
            f"Protocol {protocol}, fingerprint {fingerprint}. AlignRec retrained with the image, or the text, of a "
            "share of the items masked. Mean ± standard deviation over seeds; the change is taken seed by seed.",
            ["feature set", "items", "test Recall@20", "change"],
            _masked_rows(rows),
            texts=2,
        )
        for (protocol, fingerprint), rows in summaries.by_protocol(summaries.masked(mask))
    ]


def _masked_rows(rows: Sequence[Masked]) -> list[list[str]]:
    """Return rows of the mask-modality table: feature set, items, test Recall@20, change against the whole set."""
    return [
        [row.features, row.items, markdown.figure(row.recall),
         "" if row.change is None else markdown.with_error(row.change.mean, row.change.sd, "+.1%")]
        for row in rows
    ]  # fmt: skip


def masked_charts(mask: pa.Table) -> list[tuple[str, list[Chart]]]:
    """Return, for each protocol, a chart a feature set: Recall@20 over the share that is masked, image and text.

    A feature set with fewer than three ratios, the whole set counted, has no chart.
    """
    charts = []
    protocols = list(summaries.by_protocol(summaries.masked(mask)))
    for (protocol, _), rows in protocols:
        drawn = []
        for features in dict.fromkeys(row.features for row in rows):
            own = [row for row in rows if row.features == features]
            ratios = sorted({row.ratio for row in own})
            lines = {
                f"{modality} masked": {
                    row.ratio: row.recall for row in own if row.modality in (modality, summaries.WHOLE)
                }
                for modality in dict.fromkeys(row.modality for row in own if row.modality != summaries.WHOLE)
            }
            if len(ratios) > 2:
                places = {ratio: f"{ratio:.4g}" for ratio in ratios}
                drawn.append(plots.curves(f"{features}: test Recall@20 by share masked", places, lines))
        charts.append((protocol if len(protocols) > 1 else "", drawn))
    return [(heading, drawn) for heading, drawn in charts if drawn]


def tails(tail: pa.Table) -> list[Table]:
    """Return, for each protocol and slice of table TAIL, the means of all contenders and AlignRec's differences."""
    rows = tail.to_pylist()
    parts = dict.fromkeys((row["protocol"], row["fingerprint"], row["slice"]) for row in rows)
    several = len({protocol for protocol, *_ in parts}) > 1
    shown: list[Table] = []
    for protocol, fingerprint, name in parts:
        own = [row for row in rows if (row["fingerprint"], row["slice"]) == (fingerprint, name)]
        label = f"Protocol {protocol}, fingerprint {fingerprint}. {SLICES[name]} Mean over seeds; 95 % intervals of "
        label += "the bootstrap."
        suffix = f", {protocol}" if several else ""
        shown.append(_by_group(f"Recall@{own[0]['k']} by {name}{suffix}", label, own, "mean"))
        if any(row["difference"] is not None for row in own):
            note = f"{label} What AlignRec on the released features has more than each other run; marked where p is "
            note += f"below {SURE} after Holm's correction for all of these tests."
            tested = [row for row in own if row["difference"] is not None]
            shown.append(_by_group(f"AlignRec's lead by {name}{suffix}", note, tested, "difference"))
    return shown


def _by_group(heading: str, note: str, rows: Sequence[Mapping[str, Any]], figure: str) -> Table:
    """Return runs x groups; `figure` is mean or difference, each with its interval."""
    labels = list(dict.fromkeys(row["label"] for row in rows))
    runs = list(dict.fromkeys((row["model"], row["features"]) for row in rows if row["features"] not in CONTROLS))
    cells = {(row["model"], row["features"], row["label"]): row for row in rows}
    low, high, form = ("mean_low", "mean_high", ".4f") if figure == "mean" else ("low", "high", "+.4f")

    def text(row: Mapping[str, Any] | None) -> str:
        return "" if row is None else f"{row[figure]:{form}} ({row[low]:{form}} .. {row[high]:{form}})"

    table = [[judged.name(*run), *(text(cells.get((*run, label))) for label in labels)] for run in runs]
    sizes = {row["label"]: f"{row['n']:,}" for row in rows}
    sure = {
        (1 + r, 1 + c)
        for r, run in enumerate(runs) for c, label in enumerate(labels)
        if figure == "difference" and _sure(cells.get((*run, label)))
    }  # fmt: skip
    return Table(heading, note, ["run", *labels], [["n", *(sizes[x] for x in labels)], *table], best=frozenset(sure))


def arms(table: pa.Table) -> list[Table]:
    """Return table ARMS as two tables: AlignRec on the features of each arm, and the probes; none for an empty one.

    Of an arm with several encoders the row of all of them together is shown, which is its last.
    """
    keys = ("arm", "what", "features", "form", "metric", "k", "protocol")
    rows = list({tuple(row[key] for key in keys): row for row in table.to_pylist()}.values())
    if not rows:
        return []
    recall = [row for row in rows if (row["what"], row["metric"]) == (RELEASED, "recall")]
    k = headline([row["k"] for row in recall]) if recall else 0
    return [
        _arms_recommended([row for row in recall if row["k"] == k], k),
        *_arms_probed([row for row in rows if row["what"] != RELEASED]),
    ]


def _arms_recommended(rows: Sequence[Mapping[str, Any]], k: int) -> Table:
    spans = [None if r["difference"] is None else (r["low"], r["difference"], r["high"]) for r in rows]
    several = len({row["protocol"] for row in rows}) > 1
    cells = [
        [f"{r['arm']}, {r['protocol']}" if several else r["arm"], r["features"], str(r["seeds"]),
         markdown.with_error(r["mean"], r["sd"]), *_change(r), r["note"]]
        for r in rows
    ]  # fmt: skip
    return Table(
        "AlignRec on the encoder of each arm",
        f"{_protocols(rows)} Test figures, mean ± standard deviation over trainings. The change is against `recipe`, "
        "the parameters as they stand; its interval is over users (95 %), p is Holm's.",
        ["arm", "features", "trainings", f"Recall@{k}", "change", "95 % interval", "p", "to be read with"],
        cells,
        texts=2,
        best=frozenset((i, 4) for i, r in enumerate(rows) if _sure(r)),
        bars=plots.bars(spans),
    )


def _sure(row: Mapping[str, Any] | None) -> bool:
    return row is not None and row["p_holm"] is not None and row["p_holm"] < SURE


def _change(row: Mapping[str, Any]) -> list[str]:
    if row["difference"] is None:
        return ["", "", ""]
    return [f"{row['difference']:+.4f}", f"{row['low']:+.4f} .. {row['high']:+.4f}", f"{row['p_holm']:.2g}"]


def _arms_probed(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield the probes of all arms, a column a probe, at the headline cutoff; changes that are sure are marked."""
    if not rows:
        return
    k = headline([row["k"] for row in rows])
    own = [row for row in rows if row["k"] == k]
    probes = list(dict.fromkeys((row["what"], row["metric"]) for row in own))
    lines = list(dict.fromkeys((row["arm"], row["features"], row["form"]) for row in own))
    cells = {(row["arm"], row["features"], row["form"], row["what"]): row for row in own}
    notes = dict.fromkeys(f"{row['arm']}, {row['what']}: {row['note']}." for row in own if row["note"])
    yield Table(
        "Probes of each arm",
        "Judged without a recommender, raw and after the same processing; the change against `recipe` stands in "
        f"brackets, marked where p is below {SURE} after Holm's correction. {' '.join(notes)}".strip(),
        ["arm", "features", "form", *(f"{PROBES[what].name} {metric}@{k}" for what, metric in probes)],
        [[*line, *(_with_change(cells.get((*line, what))) for what, _ in probes)] for line in lines],
        texts=3,
        best=frozenset(
            (r, 3 + c)
            for r, line in enumerate(lines) for c, (what, _) in enumerate(probes)
            if _sure(cells.get((*line, what)))
        ),
    )  # fmt: skip


def _with_change(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['mean']:.4f}" + ("" if row["difference"] is None else f" ({row['difference']:+.4f})")


def _protocols(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentence that names the rows' protocols."""
    labels = dict.fromkeys(f"Protocol {row['protocol']}, fingerprint {row['fingerprint']}." for row in rows)
    return " ".join(labels)


def sweep_charts(curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart a sweep of one key: mean valid Recall@20 over its values, in their order, with its spread."""
    charts = []
    for sweep, key in dict.fromkeys((row["sweep"], row["key"]) for row in curves):
        points = [row for row in curves if row["sweep"] == sweep]
        if len(points) > 1:
            places = {float(i): f"{row['value']:.4g}" for i, row in enumerate(points)}
            line = {float(i): Cell(row[RECALL], row["sd"], ()) for i, row in enumerate(points)}
            charts.append(plots.curves(f"{sweep}: valid Recall@{CUTOFF} by {key}", places, {key: line}))
    return charts


def sweeps(curves: Sequence[Mapping[str, Any]], heatmaps: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table of the curves' points, and a heat map for each pair of keys of a sweep."""
    points = [
        [
            row["sweep"],
            row["key"],
            f"{row['value']:.4g}",
            str(row["seeds"]),
            markdown.with_error(row[RECALL], row["sd"]),
        ]
        for row in curves
    ]
    best: dict[str, int] = {}
    for i, row in enumerate(curves):
        if row["sweep"] not in best or row[RECALL] > curves[best[row["sweep"]]][RECALL]:
            best[row["sweep"]] = i
    head = ["sweep", "key", "value", "seeds", f"valid Recall@{CUTOFF}"]
    marked = frozenset((i, 4) for i in best.values())
    maps = dict.fromkeys(row["map"].partition(":")[0] for row in heatmaps)
    return [
        *([Table("One setting at a time", "The best of each sweep is marked.", head, points, texts=2, best=marked)]
          if points else []),
        *(table for where in maps
          for table in tables.sweep(where, [row for row in heatmaps if row["map"].startswith(f"{where}:")])),
    ]  # fmt: skip


def summed(study: Study) -> list[Table]:
    """Return the study in few tables, for the card of a release."""
    parts = {"mask": masked, "tail": tails, "arms": arms}
    shown = [table for part, of in parts.items() if part in study for table in of(study[part])]
    return [*shown, *sequenced.used(study)]
