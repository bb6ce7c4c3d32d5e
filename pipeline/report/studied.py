"""The study as sections: mask modality, arms of pre-training, sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.cutoff import CUTOFF, headline
from pipeline.evaluation.evidence import Cell, seeds_of
from pipeline.models import RELEASED
from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import LEVEL
from pipeline.report import judged, markdown, plots, sequenced, tables, tail
from pipeline.report.gather import Evidence
from pipeline.report.plots import Chart, Picture
from pipeline.report.section import Section
from pipeline.report.tables import FLOORED, Table, p_value
from pipeline.study import summaries
from pipeline.study.summaries import RECALL, Masked

Study = Mapping[str, pa.Table]
"""part -> its table; a part that is not there was not studied"""
RECALL_NAME = f"Recall@{CUTOFF}"


def sections(evidence: Evidence) -> Iterator[Section]:
    """Yield mask modality, arms of pre-training, and sweeps; each is empty where it was not studied."""
    mask, arms_table = (evidence.study.get(part, schemas.STUDY[part].empty_table()) for part in ("mask", "arms"))
    note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    yield Section("mask", "Mask modality", "Mask modality", note, masked_pictures(mask), tables=masked(mask))
    note = "Encoders that were pre-trained with other settings, each against the recipe that is released."
    yield Section("arms", "Arms", "Arms of pre-training", note, arms_pictures(arms_table), tables=arms(arms_table))
    note = "Settings of AlignRec, its graph and its encoder, measured on valid alone: test was not opened for them."
    maps, points = heatmaps(evidence.heatmaps), sweep_points(evidence.curves)
    yield Section(
        "settings-swept", "Hyper-parameters", "Hyper-parameters", note, sweep_charts(evidence.curves), maps, points
    )
    note = "Each cell is the best valid Recall@20 among the settings tried there; it has not seen test."
    swept = evidence.sweeps.items()
    maps = [table for where, (effects, _) in swept for table in tables.sweep(where, effects)]
    won = [judged.winners(where, results) for where, (_, results) in swept]
    yield Section("sweeps", "Sweeps", "Sweeps of settings", note, maps=maps, tables=won)


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


def masked_pictures(mask: pa.Table) -> list[Picture]:
    """Return, for each protocol and feature set, Recall@20 over what is masked.

    Of three ratios or more, the whole set counted, it is a curve; else a row for each.
    """
    pictures: list[Picture | None] = []
    protocols = list(summaries.by_protocol(summaries.masked(mask)))
    for (protocol, _), rows in protocols:
        for features in dict.fromkeys(row.features for row in rows):
            own = [row for row in rows if row.features == features]
            title = f"{features}: test {RECALL_NAME}, mean ± sd over {seeds_of(len(row.recall.values) for row in own)}"
            title += f"; {protocol}" if len(protocols) > 1 else ""
            pictures.append(_masked_picture(title, own))
    return [picture for picture in pictures if picture is not None]


def _masked_picture(title: str, rows: Sequence[Masked]) -> Picture | None:
    ratios = sorted({row.ratio for row in rows})
    if len(ratios) < 3:
        figures = [markdown.figure(row.recall) for row in rows]
        lost = ["" if row.change is None else f", {row.change.mean:+.1%}" for row in rows]
        return plots.intervals(
            title,
            [
                plots.Row(row.items, [plots.around(row.recall)], f + c)
                for row, f, c in zip(rows, figures, lost, strict=True)
            ],
        )
    lines = {
        f"{modality} masked": {row.ratio: row.recall for row in rows if row.modality in (modality, summaries.WHOLE)}
        for modality in dict.fromkeys(row.modality for row in rows if row.modality != summaries.WHOLE)
    }
    return plots.curves(f"{title}, by share masked", {ratio: f"{ratio:.4g}" for ratio in ratios}, lines)


def arms(table: pa.Table) -> list[Table]:
    """Return table ARMS as two tables: AlignRec on the features of each arm, and the probes; none for an empty one.

    Of an arm with several encoders the row of all of them together is shown, which is its last.
    """
    rows = _last(table)
    if not rows:
        return []
    recall, k = _recalls(rows)
    return [_arms_recommended(recall, k), *_arms_probed([row for row in rows if row["what"] != RELEASED])]


def arms_pictures(table: pa.Table) -> list[Picture]:
    """Return AlignRec's change with the encoder of each arm, against the recipe's."""
    recall, k = _recalls(_last(table))
    rows = [
        plots.Row(
            _arm(row, recall), [(row["low"], row["difference"], row["high"])],
            f"{row['difference']:+.4f}, p {p_value(row['p'], row['p_holm'])}", _sure(row),
        )
        for row in recall if row["difference"] is not None
    ]  # fmt: skip
    over = seeds_of(row["seeds"] for row in recall) if recall else ""
    picture = plots.intervals(
        f"Change in test Recall@{k} against the recipe over {over.replace('seed', 'training')}, 95 % interval", rows
    )
    return [] if picture is None else [picture]


def _last(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of table ARMS; of an arm with several encoders that of all of them together, its last."""
    keys = ("arm", "what", "features", "form", "metric", "k", "protocol")
    return list({tuple(row[key] for key in keys): row for row in table.to_pylist()}.values())


def _recalls(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return AlignRec's rows of recall at the headline cutoff, and that cutoff."""
    recall = [row for row in rows if (row["what"], row["metric"]) == (RELEASED, "recall")]
    k = headline([row["k"] for row in recall]) if recall else 0
    return [row for row in recall if row["k"] == k], k


def _arm(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of an arm, with what tells it from the other rows."""
    parts = [row["arm"]]
    parts += [row[key] for key in ("features", "protocol") if len({other[key] for other in rows}) > 1]
    return ", ".join(parts)


def _arms_recommended(rows: Sequence[Mapping[str, Any]], k: int) -> Table:
    several = len({row["protocol"] for row in rows}) > 1
    cells = [
        [f"{r['arm']}, {r['protocol']}" if several else r["arm"], r["features"], str(r["seeds"]),
         markdown.with_error(r["mean"], r["sd"]), *_change(r), r["note"]]
        for r in rows
    ]  # fmt: skip
    return Table(
        "AlignRec on the encoder of each arm",
        f"{_protocols(rows)} Test figures, mean ± standard deviation over trainings. The change is against `recipe`, "
        f"the parameters as they stand; its interval is over users (95 %), p is Holm's. {FLOORED}",
        ["arm", "features", "trainings", f"Recall@{k}", "change", "95 % interval", "p", "to be read with"],
        cells,
        texts=2,
        best=frozenset((i, 4) for i, r in enumerate(rows) if _sure(r)),
    )


def _sure(row: Mapping[str, Any] | None) -> bool:
    return row is not None and row["p_holm"] is not None and row["p_holm"] < LEVEL


def _change(row: Mapping[str, Any]) -> list[str]:
    if row["difference"] is None:
        return ["", "", ""]
    return [f"{row['difference']:+.4f}", f"{row['low']:+.4f} .. {row['high']:+.4f}", p_value(row["p"], row["p_holm"])]


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
        f"brackets, marked where p is below {LEVEL} after Holm's correction. {' '.join(notes)}".strip(),
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
            charts.append(
                plots.curves(
                    f"{sweep}: valid {RECALL_NAME} by {key}, mean ± sd over {seeds_of(row['seeds'] for row in points)}",
                    places,
                    {key: line},
                )
            )
    return charts


def sweep_points(curves: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table of the curves' points; none without curves."""
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
    head = ["sweep", "key", "value", "seeds", f"valid {RECALL_NAME}"]
    marked = frozenset((i, 4) for i in best.values())
    heading = "One setting at a time"
    return [Table(heading, "The best of each sweep is marked.", head, points, texts=2, best=marked)] if points else []


def heatmaps(cells: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a heat map for each pair of keys of a sweep."""
    maps = dict.fromkeys(row["map"].partition(":")[0] for row in cells)
    return [
        table
        for where in maps
        for table in tables.sweep(where, [row for row in cells if row["map"].startswith(f"{where}:")])
    ]


def summed(study: Study) -> list[Table]:
    """Return the study in few tables, for the card of a release."""
    parts = {"mask": masked, "tail": tail.tails, "arms": arms}
    shown = [table for part, of in parts.items() if part in study for table in of(study[part])]
    return [*shown, *sequenced.used(study)]
