"""Tables of the study (mask modality, sweeps, long tail) and of the quality of semantic IDs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.benchmark import summaries
from alignrec.pipeline.evaluation.cutoff import CUTOFF, headline_cutoff
from alignrec.pipeline.evaluation.evidence import Comparison, group_values, seeds_of
from alignrec.pipeline.evaluation.statistics import LEVEL
from alignrec.pipeline.report.recommenders import rows_equal_to
from alignrec.pipeline.report.table import (
    BEST,
    CONTROLS,
    RECALL,
    Difference,
    Table,
    format_figure,
    protocol_note,
    run_name,
    with_error,
)

Record = Mapping[str, Any]
CODES = ("collide", "neighbours")  # figures of semantic IDs
SLICES = {
    "popularity": "Targets by popularity of the item in train: tenths from the least (1) to the most popular (10), or "
    "thirds where a tenth has few targets; cold items have no train interaction.",
    "history": "Test users by the number of their train interactions.",
}
SPREADS = {"gini": ".3f", "novelty": ".2f"}  # figure of the recommendations -> its format
Run = tuple[str, str]  # model, features
Groups = Mapping[Run, Mapping[str, tuple[float, float, float]]]  # run -> label of a group -> low end, mean, high end


def mask_tables(mask: pa.Table) -> list[Table]:
    return [
        Table(
            "Mask modality",
            f"{protocol_note(rows[0]._asdict())} AlignRec retrained with the image, or the text, of a "
            "share of the items masked. Mean ± standard deviation over seeds; the change is taken seed by seed.",
            ["feature set", "items", f"test {RECALL}", "change"],
            [[row.features, row.items, format_figure(row.recall), format_figure(row.change, "+.1%")] for row in rows],
            texts=2,
        )
        for _, rows in summaries.by_protocol(summaries.summarise_mask(mask))
    ]


def sweep_points(curves: Sequence[Record]) -> list[Table]:
    points = [
        [row["sweep"], row["key"], f"{row['value']:.4g}", str(row["seeds"]),
         with_error(row[summaries.RECALL], row["sd"])]
        for row in curves
    ]  # fmt: skip
    best: dict[str, int] = {}
    for i, row in enumerate(curves):
        if row["sweep"] not in best or row[summaries.RECALL] > curves[best[row["sweep"]]][summaries.RECALL]:
            best[row["sweep"]] = i
    head = ["sweep", "key", "value", "seeds", f"valid {RECALL}"]
    marked = dict.fromkeys(((i, 4) for i in best.values()), BEST)
    heading = "One setting at a time"
    return [Table(heading, "The best of each sweep is marked.", head, points, texts=2, marks=marked)] if points else []


def heatmap_tables(cells: Sequence[Record]) -> list[Table]:
    by_map = group_values((row["map"], row) for row in cells)
    return [_heatmap_table(name.partition(":")[0], rows) for name, rows in by_map.items()]


def _heatmap_table(where: str, cells: Sequence[Record]) -> Table:
    valid = {(row["x"], row["y"]): row["valid"] for row in cells}
    xs, ys = (sorted({key[axis] for key in valid}, key=float) for axis in (0, 1))
    rows = [[y, *(f"{valid[x, y]:.3f}" if (x, y) in valid else "" for x in xs)] for y in ys]
    first, second = cells[0]["settings"].split(", ")
    return Table(f"{where}: {first} (across) and {second} (down)", "", ["", *xs], rows)


def study_tables(study: Mapping[str, pa.Table]) -> list[Table]:
    parts = {"mask": mask_tables, "tail": lead_tables}
    return [table for part, of in parts.items() if part in study for table in of(study[part])]


def semantic_ids(quality: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """Return tables of the figures of pipeline/semantic_ids/codes.py."""
    note = (
        "Collide: share of items that have all codes of another, which a suffix separates. Neighbours: how often an "
        "item and a nearest neighbour share the first code. Useful codes must beat random ones in the latter."
    )
    rows = [
        [f"{name}, random codes" if method == "random" else name, *(f"{figures[key]:.1%}" for key in CODES)]
        for name, methods in quality.items()
        for method, figures in methods.items()
    ]
    return [Table("Semantic IDs", note, ["codes", *CODES], rows, texts=1)] if rows else []


def recall_groups(tail: pa.Table, judged: Comparison, which: str) -> Groups:
    """Return recall with interval by run and group, from table TAIL, best Recall@20 first."""
    rows = tail.filter(rows_equal_to({"fingerprint": judged.fingerprint, "slice": which})).to_pylist()
    order = {(r.model, r.features): at for at, r in enumerate(judged.rows)}
    found: dict[Run, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        span = row["mean_low"], row["mean"], row["mean_high"]
        found.setdefault((row["model"], row["features"]), {})[row["label"]] = span
    return dict(sorted(found.items(), key=lambda one: order.get(one[0], len(order))))


def catalogue_table(slices: pa.Table, judged: Comparison) -> Table:
    """Return what each run recommends (table SLICES), except controls; no rows if it was not measured."""
    k = headline_cutoff(pc.unique(slices["k"]).to_pylist() or [CUTOFF])
    kept = slices.filter(rows_equal_to({"fingerprint": judged.fingerprint, "ablation": "", "k": k})).to_pylist()
    by_run = group_values(((row["model"], row["features"]), row) for row in kept if row["value"] is not None)
    rows = []
    for run in ((r.model, r.features) for r in judged.rows if r.features not in CONTROLS):
        seeds = group_values(((row["label"], row["metric"]), row["value"]) for row in by_run.get(run, []))
        of = {key: float(np.mean(values)) for key, values in seeds.items()}
        if coverage := of.get(("all", "coverage")):
            exposed = [of.get((str(part), "exposure"), 0.0) for part in range(11)]
            spread = [f"{of[key]:{form}}" if (key := ("all", name)) in of else "" for name, form in SPREADS.items()]
            rows.append([run_name(*run), f"{coverage:.1%}", *spread, f"{exposed[10]:.1%}", f"{sum(exposed[1:6]):.1%}"])
    note = (
        f"Of the top {k} of all test users, means over seeds. Coverage: share of the catalogue that is recommended. "
        "Gini: of how often each item is recommended, 0 if all alike. "
        "Novelty: mean of -log2(share of users who have the item). Exposure: share of places of the tenth of items "
        "with the most train interactions, and of the half with the fewest."
    )
    head = ["run", "coverage", "Gini", "novelty, bits", "exposure: top tenth", "exposure: lower half"]
    return Table("What is recommended", note, head, rows)


def lead_tables(tail: pa.Table) -> list[Table]:
    """Return by group AlignRec's lead on the released features over other runs, except controls."""
    rows = [row for row in tail.to_pylist() if row["difference"] is not None and row["features"] not in CONTROLS]
    several = len({row["protocol"] for row in rows}) > 1
    by_slice = group_values(((row["fingerprint"], row["slice"]), row) for row in rows).values()
    return [_lead_table(own).under(own[0]["protocol"] if several else "") for own in by_slice]


def _lead_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    labels = {row["label"]: f"{row['n']:,}" for row in rows}
    by_run = group_values((run_name(row["model"], row["features"]), row) for row in rows)
    cells = [["n", *labels.values()]]
    marks: dict[tuple[int, int], str] = {}
    for r, (run, own) in enumerate(by_run.items(), start=1):
        tests = {row["label"]: Difference.of(row) for row in own}
        marks |= {(r, c): tests[at].mark for c, at in enumerate(labels, start=1) if at in tests and tests[at].sure}
        cells.append([run, *(tests[label].lead if label in tests else "" for label in labels)])
    which = rows[0]["slice"]
    note = (
        f"{protocol_note(rows[0])} {SLICES[which]} What AlignRec on the released features has more, "
        f"Recall@{rows[0]['k']} on test, mean over {seeds_of(row['seeds'] for row in rows)}; 95 % intervals of the "
        f"bootstrap; marked where p is below {LEVEL} after Holm's correction for all of these tests."
    )
    return Table(f"AlignRec's lead by {which}", note, ["run", *labels], cells, marks=marks)
