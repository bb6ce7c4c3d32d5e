"""Tables of the benchmark, of the study (mask modality, sweeps, long tail), and of the quality of semantic IDs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.evaluation.cutoff import CUTOFF, headline_cutoff
from alignrec.pipeline.evaluation.evidence import (
    HEADLINE,
    MAIN,
    Comparison,
    RunFigures,
    group_values,
    seeds_of,
    summarise_mask,
)
from alignrec.pipeline.evaluation.statistics import LEVEL
from alignrec.pipeline.features.names import LEAKED
from alignrec.pipeline.models import CONTENT_USES, content_use
from alignrec.pipeline.report.table import (
    BEST,
    CHANGE,
    CONTROLS,
    FLOORED,
    RECALL,
    Difference,
    Place,
    Table,
    Value,
    format_figure,
    measure_name,
    protocol_note,
    run_name,
    with_error,
)

CODES = ("collide", "neighbours")  # figures of semantic IDs
SLICES = {
    "popularity": "Targets by popularity of the item in train: tenths from the least (1) to the most popular (10), or "
    "thirds where a tenth has few targets; cold items have no train interaction.",
    "history": "Test users by the number of their train interactions.",
}
SPREADS = {"gini": ".3f", "novelty": ".2f"}  # figure of the recommendations -> number format


def results_table(comparison: Comparison) -> Table:
    order = [*CONTENT_USES, ""]
    rows = sorted(
        ((content_use(r.model, r.features), r) for r in comparison.rows),
        key=lambda one: order.index(one[0]),
    )
    return Table.of(
        "Recommenders on these features",
        f"{protocol_note(vars(comparison))} Test figures at the best valid "
        f"epoch; mean ± standard deviation over seeds; {comparison.candidates} ranked, "
        f"{comparison.masked} items masked. Content, as AlignRec's article sorts models: features as an input "
        "(a), aggregated over graphs (b), with losses of both together (c); AlignRec aligns in stages.",
        ["content", "model", "features", "seeds", *(measure_name(*key) for key in HEADLINE)],
        [
            [way, r.model, r.features, str(r.seeds), *(r.cells.get(key, "") for key in HEADLINE)]
            for way, r in rows
        ],
        texts=3,
        best=range(4, 4 + len(HEADLINE)),
        unranked=LEAKED,
    )


class Ablated(NamedTuple):
    """An ablation or the full model, and its change on the same seeds."""

    name: str
    run: RunFigures
    change: Difference | None  # None for the full model, or if no figure changes
    repeats: bool  # whether all figures of all seeds equal the full model's


def ablated_rows(comparison: Comparison, paired: pa.Table | None) -> Iterator[Ablated]:
    wanted = rows_equal_to(
        {"fingerprint": comparison.fingerprint, "metric": MAIN[0], "ablation_a": ""}
    )
    tests = (
        [] if paired is None else paired.filter(wanted & (pc.field("ablation_b") != "")).to_pylist()
    )
    tested = {(t["model_b"], t["features_b"], t["ablation_b"]): Difference.of(t) for t in tests}
    full = {(t["model_a"], t["features_a"]) for t in tests}
    whole = [r for r in comparison.rows if not r.ablation and (r.model, r.features) in full]
    for run in whole + [r for r in comparison.rows if r.ablation]:
        content = "" if run.ablation and (run.model, run.features) in full else f" ({run.features})"
        test = tested.get((run.model, run.features, run.ablation))
        repeats = bool(run.ablation) and any(run.repeats(other) for other in whole)
        # tests are of the full model minus the ablation; a change is the reverse
        change = test and test._replace(
            low=0 - test.high, middle=0 - test.middle, high=0 - test.low
        )
        yield Ablated(
            f"{run.ablation or 'full model'}{content}", run, None if repeats else change, repeats
        )


def ablation_table(ablated: Sequence[Ablated]) -> Table:
    rows: list[list[Value]] = []
    for row in ablated:
        figures = (format_figure(row.run.cells.get(key)) for key in (MAIN, ("ndcg", CUTOFF)))
        change = ["none", "identical", ""] if row.repeats else [row.change]
        rows.append([row.name, str(row.run.seeds), *figures, *change])
    repeated = ", ".join(row.run.ablation for row in ablated if row.repeats)
    nothing = (
        f" Identical to the full model in every figure of every seed: {repeated}. What they change has nothing "
        "to act on under these settings."
    )
    return Table.of(
        "Without one part, or with one modality",
        "Each row differs from the full model in what its name says; both on the same seeds. Test figures, mean ± "
        "standard deviation over seeds; the change in Recall@20 and its 95 % interval are over users; p is Holm's. "
        f"{FLOORED}{nothing if repeated else ''}",
        ["ablation", "seeds", "Recall@20", "NDCG@20", *CHANGE],
        rows,
    )


def tuning_table(tuning: pa.Table) -> Table:
    contenders = group_values(((row["model"], row["features"]), row) for row in tuning.to_pylist())
    rows = []
    for contender, tried in contenders.items():
        chosen = next(row for row in tried if row["chosen"])
        setting = ", ".join(
            f"{key} {value:g}" for key, value in json.loads(chosen["setting"]).items()
        )
        given, best = (
            "" if row["valid"] is None else f"{row['valid']:.4f}" for row in (tried[0], chosen)
        )
        failed = sum(row["state"] == "failed" for row in tried)
        kept = "" if chosen["trial"] else " (as given)"
        rows.append(
            [run_name(*contender), f"{setting}{kept}", str(len(tried)), str(failed), given, best]
        )
    return Table(
        "Settings tried and chosen",
        "A model tries the same settings on every feature set, one training each; the first is the setting as given. "
        f"The best valid Recall@{CUTOFF} is chosen before test is opened.",
        ["run", "chosen setting", "tried", "failed", "valid, as given", "valid, chosen"],
        rows,
        texts=2,
    )


def rows_equal_to(wanted: Mapping[str, Any]) -> pc.Expression:
    return reduce(and_, (pc.field(column) == value for column, value in wanted.items()))


def mask_tables(study: Mapping[str, pa.Table]) -> list[Table]:
    return [
        Table(
            "Mask modality",
            f"{protocol_note(rows[0]._asdict())} AlignRec retrained with the image, or the text, of a "
            "share of the items masked. Mean ± standard deviation over seeds; the change is taken seed by seed.",
            ["feature set", "items", f"test {RECALL}", "change"],
            [
                [
                    row.features,
                    row.items,
                    format_figure(row.recall),
                    format_figure(row.change, "+.1%"),
                ]
                for row in rows
            ],
            texts=2,
        )
        for rows in (summarise_mask(study["mask"]).values() if "mask" in study else ())
    ]


def sweep_points(curves: Sequence[Mapping[str, Any]]) -> list[Table]:
    recall, best = f"recall@{CUTOFF}", dict[str, int]()
    for i, row in enumerate(curves):
        if row["sweep"] not in best or row[recall] > curves[best[row["sweep"]]][recall]:
            best[row["sweep"]] = i
    points = [
        [
            row["sweep"],
            row["key"],
            f"{row['value']:.4g}",
            str(row["seeds"]),
            with_error(row[recall], row["sd"]),
        ]
        for row in curves
    ]
    head = ["sweep", "key", "value", "seeds", f"valid {RECALL}"]
    marked = dict.fromkeys(((i, 4) for i in best.values()), BEST)
    heading = "One setting at a time"
    return (
        [Table(heading, "The best of each sweep is marked.", head, points, texts=2, marks=marked)]
        if points
        else []
    )


def heatmap_tables(cells: Sequence[Mapping[str, Any]]) -> list[Table]:
    tables = []
    for name, own in group_values((row["map"], row) for row in cells).items():
        valid = {(row["x"], row["y"]): row["valid"] for row in own}
        xs, ys = (sorted({key[axis] for key in valid}, key=float) for axis in (0, 1))
        rows = [[y, *(f"{valid[x, y]:.3f}" if (x, y) in valid else "" for x in xs)] for y in ys]
        first, second = own[0]["settings"].split(", ")
        heading = f"{name.partition(':')[0]}: {first} (across) and {second} (down)"
        tables.append(Table(heading, "", ["", *xs], rows))
    return tables


def semantic_id_tables(quality: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """Return a table of collisions and neighbours of semantic IDs; empty without any."""
    note = (
        "Collide: share of items whose codes all equal another item's; a suffix separates them. Neighbours: how often "
        "an item and a nearest neighbour share the first code. Useful codes must beat random ones in the latter."
    )
    rows = [
        [
            f"{name}, random codes" if method == "random" else name,
            *(f"{figures[key]:.1%}" for key in CODES),
        ]
        for name, methods in quality.items()
        for method, figures in methods.items()
    ]
    return [Table("Semantic IDs", note, ["codes", *CODES], rows, texts=1)] if rows else []


def catalogue_table(slices: pa.Table, judged: Comparison) -> Table:
    """Return what each run recommends (table SLICES), except controls; no rows if it was not measured."""
    k = headline_cutoff(pc.unique(slices["k"]).to_pylist() or [CUTOFF])
    kept = slices.filter(
        rows_equal_to({"fingerprint": judged.fingerprint, "ablation": "", "k": k})
    ).to_pylist()
    by_run = group_values(
        ((row["model"], row["features"]), row) for row in kept if row["value"] is not None
    )
    rows = []
    for run in ((r.model, r.features) for r in judged.rows if r.features not in CONTROLS):
        seeds = group_values(
            ((row["label"], row["metric"]), row["value"]) for row in by_run.get(run, [])
        )
        of = {key: float(np.mean(values)) for key, values in seeds.items()}
        if coverage := of.get(("all", "coverage")):
            exposed = [of.get((str(part), "exposure"), 0.0) for part in range(11)]
            spread = [
                f"{of[key]:{form}}" if (key := ("all", name)) in of else ""
                for name, form in SPREADS.items()
            ]
            rows.append(
                [
                    run_name(*run),
                    f"{coverage:.1%}",
                    *spread,
                    f"{exposed[10]:.1%}",
                    f"{sum(exposed[1:6]):.1%}",
                ]
            )
    note = (
        f"Of the top {k} of all test users, means over seeds. Coverage: share of the catalogue that is recommended. "
        "Gini: of how often each item is recommended, 0 if all alike. "
        "Novelty: mean of -log2(share of users who have the item). Exposure: share of places of the tenth of items "
        "with the most train interactions, and of the half with the fewest."
    )
    head = [
        "run",
        "coverage",
        "Gini",
        "novelty, bits",
        "exposure: top tenth",
        "exposure: lower half",
    ]
    return Table("What is recommended", note, head, rows)


def lead_tables(study: Mapping[str, pa.Table]) -> list[Table]:
    """Return AlignRec's lead on the released features over other runs, except controls, by group."""
    tail = study["tail"].to_pylist() if "tail" in study else []
    rows = [
        row for row in tail if row["difference"] is not None and row["features"] not in CONTROLS
    ]
    several = len({row["protocol"] for row in rows}) > 1
    tables = []
    for (_, which), own in group_values(
        ((row["fingerprint"], row["slice"]), row) for row in rows
    ).items():
        labels = {row["label"]: f"{row['n']:,}" for row in own}
        cells, marks = [["n", *labels.values()]], dict[Place, str]()
        by_run = group_values((run_name(row["model"], row["features"]), row) for row in own)
        for r, (run, led) in enumerate(by_run.items(), start=1):
            tests = {row["label"]: Difference.of(row) for row in led}
            marks |= {
                (r, c): tests[at].mark
                for c, at in enumerate(labels, start=1)
                if at in tests and tests[at].sure
            }
            leads = {
                at: f"{test.middle:+.4f} ({test.low:+.4f} .. {test.high:+.4f})"
                for at, test in tests.items()
            }
            cells.append([run, *(leads.get(label, "") for label in labels)])
        note = (
            f"{protocol_note(own[0])} {SLICES[which]} What AlignRec on the released features has more, "
            f"Recall@{own[0]['k']} on test, mean over {seeds_of(row['seeds'] for row in own)}; 95 % intervals of the "
            f"bootstrap; marked where p is below {LEVEL} after Holm's correction for all of these tests."
        )
        table = Table(f"AlignRec's lead by {which}", note, ["run", *labels], cells, marks=marks)
        tables.append(table.under(own[0]["protocol"] if several else ""))
    return tables
