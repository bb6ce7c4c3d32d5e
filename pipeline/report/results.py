"""Tables of the benchmark, of the study (masks, sweeps, long tail), and of semantic IDs."""

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.evaluation.evidence import (
    HEADLINE,
    MAIN,
    Comparison,
    MaskedFigure,
    RunFigures,
    group_values,
    seeds_of,
    summarise_mask,
)
from alignrec.pipeline.evaluation.statistics import LEVEL
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.models import CONTENT_USES, RELEASED, content_use
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.table import (
    BEST,
    CHANGE,
    FLOORED,
    HEADLINE_RECALL,
    Difference,
    Fields,
    Place,
    Table,
    Value,
    format_figure,
    measure_name,
    protocol_note,
    run_name,
    with_error,
    with_labels,
)
from alignrec.pipeline.runtime.layout import Layout

CODES = ("collide", "neighbours")  # figures of semantic IDs
SLICES = {
    "popularity": (
        "Targets by popularity of the item in train: tenths from the least (1) to the most popular "
        "(10), or thirds where a tenth has few targets; cold items have no train interaction."
    ),
    "history": "Test users by the number of their train interactions.",
}


def results_table(comparison: Comparison) -> Table:
    order = [*CONTENT_USES, ""]
    rows: list[list[Value]] = []
    for run in comparison.rows:
        use = content_use(run.model, run.features)
        figures = [run.cells.get(key, "") for key in HEADLINE]
        rows.append([use, run.model, run.features, str(run.seeds), *figures])
    rows.sort(key=lambda row: order.index(str(row[0])))

    note = (
        f"{protocol_note(vars(comparison))} Test figures at the best valid epoch; "
        f"mean ± standard deviation over seeds; {comparison.candidates} ranked, "
        f"{comparison.masked} items masked. Content, as AlignRec's article sorts models: "
        "features as an input (a), aggregated over graphs (b), with losses of both together (c); "
        "AlignRec aligns in stages."
    )
    head = ["content", "model", "features", "seeds", *(measure_name(*key) for key in HEADLINE)]
    best = range(4, len(head))
    heading = "Recommenders on these features"
    return Table.of(heading, note, head, rows, texts=3, best=best)


def ablation_tables(outputs: Outputs) -> list[Table]:
    return [
        ablation_table(comparison, outputs.tests).under(label)
        for comparison, label in with_labels(outputs.ablated)
    ]


def ablation_table(comparison: Comparison, tests: pa.Table | None) -> Table:
    """Return the full models and the ablations, with their change on the same seeds."""
    paired = [row for row in select_tests(tests, comparison.fingerprint) if row["ablation_b"]]
    contents = {(row["model_a"], row["features_a"]) for row in paired}
    changes = {}
    for row in paired:
        changes[row["model_b"], row["features_b"], row["ablation_b"]] = _reverse(row)

    full_models = [
        run for run in comparison.rows if not run.ablation and (run.model, run.features) in contents
    ]
    rows = [_ablation_row(f"full model ({run.features})", run, [None]) for run in full_models]
    repeated = []
    for run in comparison.rows:
        content = (run.model, run.features)
        if not run.ablation:
            continue
        change: list[Value] = [changes.get((*content, run.ablation))]
        if any(run.repeats(full_model) for full_model in full_models):
            repeated.append(run.ablation)
            change = ["none", "identical", ""]
        name = run.ablation if content in contents else f"{run.ablation} ({run.features})"
        rows.append(_ablation_row(name, run, change))

    note = (
        "Each row differs from the full model in what its name says; both on the same seeds. Test "
        "figures, mean ± standard deviation over seeds; the change in Recall@20 and its 95 % "
        f"interval are over users; p is Holm's. {FLOORED}"
    )
    if repeated:
        note += (
            f" Identical to the full model in every figure of every seed: {', '.join(repeated)}. "
            "What they change has nothing to act on under these settings."
        )
    head = ["ablation", "seeds", "Recall@20", "NDCG@20", *CHANGE]
    return Table.of("Without one part, or with one modality", note, head, rows)


def _ablation_row(name: str, run: RunFigures, change: Sequence[Value]) -> list[Value]:
    figures = [format_figure(run.cells.get(key)) for key in (MAIN, ("ndcg", CUTOFF))]
    return [name, str(run.seeds), *figures, *change]


def _reverse(row: Fields) -> Difference:
    """Return the change by an ablation, as tests are of the full model minus the ablation."""
    test = Difference.of(row)
    return test._replace(low=0 - test.high, middle=0 - test.middle, high=0 - test.low)


def rival_table(comparison: Comparison, tests: pa.Table | None, released: str) -> Table | None:
    """Return what AlignRec on the features `released` has more than each run, best first.

    None without a test.
    """
    paired = [
        row
        for row in select_tests(tests, comparison.fingerprint)
        if (row["model_a"], row["features_a"], row["ablation_b"]) == (RELEASED, released, "")
    ]
    if not paired:
        return None

    paired.sort(key=lambda row: -row["mean_b"])
    rows = [
        (row["model_b"], row["features_b"], f"{row['mean_b']:.4f}", Difference.of(row))
        for row in paired
    ]
    note = (
        f"What AlignRec on {released} has more, test {HEADLINE_RECALL} over {paired[0]['n']:,} "
        "users, mean over seeds; p is Holm's, for all comparisons that were declared before "
        f"training. {FLOORED}"
    )
    head = ["model", "features", HEADLINE_RECALL, *CHANGE]
    return Table.of("AlignRec's lead", note, head, rows, texts=2)


def select_tests(tests: pa.Table | None, fingerprint: str = "") -> list[dict[str, Any]]:
    """Return the tests of full models by the main metric, of all or one comparison."""
    if tests is None:
        return []
    columns = {"metric": MAIN[0], "ablation_a": ""}
    if fingerprint:
        columns["fingerprint"] = fingerprint
    rows: list[dict[str, Any]] = tests.filter(rows_equal_to(columns)).to_pylist()
    return rows


def tuning_tables(tuning: pa.Table | None) -> list[Table]:
    if tuning is None:
        return []
    trials = group_values(((row["model"], row["features"]), row) for row in tuning.to_pylist())
    rows = []
    for (model, features), tried in trials.items():
        chosen = next(trial for trial in tried if trial["chosen"])
        failed = sum(trial["state"] == "failed" for trial in tried)
        rows.append(
            [
                run_name(model, features),
                _describe_setting(chosen),
                str(len(tried)),
                str(failed),
                _format_valid(tried[0]),
                _format_valid(chosen),
            ]
        )

    note = (
        "A model tries the same settings on every feature set, one training each; the first is "
        f"the setting as given. The best valid Recall@{CUTOFF} is chosen before test is opened."
    )
    head = ["run", "chosen setting", "tried", "failed", "valid, as given", "valid, chosen"]
    return [Table("Settings tried and chosen", note, head, rows, texts=2)]


def _describe_setting(trial: Fields) -> str:
    values = json.loads(trial["setting"])
    setting = ", ".join(f"{key} {value:g}" for key, value in values.items())
    return setting if trial["trial"] else f"{setting} (as given)"


def _format_valid(trial: Fields) -> str:
    return "" if trial["valid"] is None else f"{trial['valid']:.4f}"


def rows_equal_to(values: Fields) -> pc.Expression:
    return reduce(and_, (pc.field(column) == value for column, value in values.items()))


def mask_tables(study: Mapping[str, pa.Table]) -> list[Table]:
    if "mask" not in study:
        return []
    return [_mask_table(figures) for figures in summarise_mask(study["mask"]).values()]


def _mask_table(figures: Sequence[MaskedFigure]) -> Table:
    rows = []
    for figure in figures:
        change = format_figure(figure.change, "+.1%")
        rows.append([figure.features, figure.items, format_figure(figure.recall), change])

    note = (
        f"{protocol_note(figures[0]._asdict())} AlignRec retrained with the image, or the text, of "
        "a share of the items masked. Mean ± standard deviation over seeds; the change is taken "
        "seed by seed."
    )
    head = ["feature set", "items", f"test {HEADLINE_RECALL}", "change"]
    return Table("Mask modality", note, head, rows, texts=2)


def sweep_tables(layout: Layout) -> list[Table]:
    curves = read_json(layout.study_plot("curves"), [])
    heatmaps = group_values(
        (cell["map"], cell) for cell in read_json(layout.study_plot("heatmaps"), [])
    )
    return [*sweep_points(curves), *(_heatmap_table(*pair) for pair in heatmaps.items())]


def sweep_points(curves: Sequence[Fields]) -> list[Table]:
    if not curves:
        return []
    recall = f"recall@{CUTOFF}"
    rows: list[list[str]] = []
    marks = {}
    for sweep, points in group_values((point["sweep"], point) for point in curves).items():
        best = max(points, key=lambda point: point[recall])
        marks[len(rows) + points.index(best), 4] = BEST
        for point in points:
            setting = [point["key"], f"{point['value']:.4g}", str(point["seeds"])]
            rows.append([sweep, *setting, with_error(point[recall], point["sd"])])

    head = ["sweep", "key", "value", "seeds", f"valid {HEADLINE_RECALL}"]
    note = "The best of each sweep is marked."
    return [Table("One setting at a time", note, head, rows, texts=2, marks=marks)]


def _heatmap_table(name: str, cells: Sequence[Fields]) -> Table:
    valid = {(cell["x"], cell["y"]): f"{cell['valid']:.3f}" for cell in cells}
    xs = sorted({x for x, _ in valid}, key=float)
    ys = sorted({y for _, y in valid}, key=float)
    rows = [[y, *(valid.get((x, y), "") for x in xs)] for y in ys]

    across, down = cells[0]["settings"].split(", ")
    sweep = name.partition(":")[0]
    return Table(f"{sweep}: {across} (across) and {down} (down)", "", ["", *xs], rows)


def semantic_id_tables(quality: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """Return a table of collisions and neighbours of semantic IDs; empty without any."""
    rows = []
    for name, methods in quality.items():
        for method, figures in methods.items():
            label = f"{name}, random codes" if method == "random" else name
            rows.append([label, *(f"{figures[key]:.1%}" for key in CODES)])
    if not rows:
        return []

    note = (
        "Collide: share of items whose codes all equal another item's; a suffix separates them. "
        "Neighbours: how often an item and a nearest neighbour share the first code. Useful codes "
        "must beat random ones in the latter."
    )
    return [Table("Semantic IDs", note, ["codes", *CODES], rows)]


def lead_tables(study: Mapping[str, pa.Table]) -> list[Table]:
    """Return AlignRec's lead on the released features over runs without controls, by group."""
    if "tail" not in study:
        return []
    differences = pc.field("difference").is_valid()
    uncontrolled = ~pc.field("features").isin([*CONTROLS])
    leads = study["tail"].filter(differences & uncontrolled).to_pylist()

    protocols = {row["protocol"] for row in leads}
    by_slice = group_values(((row["fingerprint"], row["slice"]), row) for row in leads)
    tables = [_lead_table(rows) for rows in by_slice.values()]
    if len(protocols) == 1:
        return tables
    return [
        table.under(rows[0]["protocol"])
        for table, rows in zip(tables, by_slice.values(), strict=True)
    ]


def _lead_table(leads: Sequence[Fields]) -> Table:
    """Return the table of one protocol and slice."""
    targets = {row["label"]: f"{row['n']:,}" for row in leads}
    columns = ["run", *targets]
    cells = [["n", *targets.values()]]
    marks: dict[Place, str] = {}
    by_run = group_values((run_name(row["model"], row["features"]), row) for row in leads)
    for run, rows in by_run.items():
        run_cells = [run, *[""] * len(targets)]
        for row in rows:
            test, column = Difference.of(row), columns.index(row["label"])
            run_cells[column] = f"{test.middle:+.4f} ({test.low:+.4f} .. {test.high:+.4f})"
            if test.sure:
                marks[len(cells), column] = test.mark
        cells.append(run_cells)

    first = leads[0]
    note = (
        f"{protocol_note(first)} {SLICES[first['slice']]} What AlignRec on the released features "
        f"has more, Recall@{first['k']} on test, mean over "
        f"{seeds_of(row['seeds'] for row in leads)}; 95 % intervals of the bootstrap; marked where "
        f"p is below {LEVEL} after Holm's correction for all of these tests."
    )
    heading = f"AlignRec's lead by {first['slice']}"
    return Table(heading, note, columns, cells, marks=marks)
