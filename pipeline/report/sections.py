"""Sections of charts and tables, in order, for both index.html and report.md."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from alignrec import schemas
from alignrec.pipeline.evaluation.evidence import MAIN, Comparison, seeds_of
from alignrec.pipeline.evaluation.statistics import LEVEL
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.probes import CHANCE
from alignrec.pipeline.report.table import (
    CONTROLS,
    RECALL,
    Difference,
    Table,
    describe_seeds,
    format_figure,
    join_label,
    run_name,
    with_labels,
)

Span = tuple[float, float, float]  # low end, centre, high end
PAPER = "Run alignrec profile paper for the paper's other models, ablations, mask modality, long tail and hyper-parameters."
REASONS = 20  # maximum reasons listed, most frequent first
LINES = 4  # maximum runs in a chart of groups, those of highest Recall@20 first
WHOSE = {"popularity": "Recall of targets by popularity of the item",
         "history": "Recall of users by number of train interactions"}  # fmt: skip
UNITS = {
    "popularity": {str(n): f"tenth {n}" for n in range(1, 11)} | {"cold": "cold items"}
}  # kind of group -> names


class Row(NamedTuple):
    """A row of an interval chart, with a span per key."""

    name: str
    spans: Sequence[Span | None]  # one per key
    figure: str
    sure: bool = True  # whether its marks are filled
    tips: Sequence[str] = ()  # tooltip of each span


@dataclass(frozen=True)
class Intervals:
    """An interval chart, with a row per run or group; positions are percent of its width."""

    title: str
    keys: Sequence[str]  # names of a row's marks, top to bottom; empty for one
    rows: list[Row]
    marks: list[tuple[float, str]]
    lines: list[float]  # vertical lines: zero and perhaps the reference
    axis: str


@dataclass(frozen=True)
class Section:
    """A section of the page, with a link in the navigation."""

    anchor: str
    link: str
    heading: str
    note: str = ""
    drawn: Sequence[Intervals | None] = ()
    tables: Sequence[Table] = ()  # collapsed on the page

    @property
    def pictures(self) -> list[Intervals]:
        return [picture for picture in self.drawn if picture is not None]

    def __bool__(self) -> bool:
        return bool(self.pictures or self.tables)


def interval_chart(
    title: str,
    rows: Sequence[Row],
    keys: Sequence[str] = (),
    reference: float | None = None,
    axis: str = "",
) -> Intervals | None:
    """Scale intervals to percent of a range that includes zero and `reference`, such as chance; None without spans."""
    known = [v for row in rows for span in row.spans if span is not None for v in span]
    if not known:
        return None
    low, high = min(0.0, *known), max(0.0, *known, reference or 0.0)

    def at(v: float) -> float:
        return round(100 * (v - low) / ((high - low) or 1.0), 2)

    placed = []
    for row in rows:
        tips = []
        for i, span in enumerate(row.spans):
            label = f"{row.name}, {keys[i]}" if keys else row.name
            ends = f", {span[0]:.4g} to {span[2]:.4g}" if span and span[0] < span[2] else ""
            tips.append(f"{label}: {span[1]:.4g}{ends}" if span else "")
        spans = [span and (at(span[0]), at(span[1]), at(span[2])) for span in row.spans]
        placed.append(row._replace(spans=spans, tips=tips))
    lines = [at(v) for v in (0.0, reference) if v is not None]
    return Intervals(
        title, keys, placed, [(at(v), f"{v:.4g}") for v in axis_ticks(low, high)], lines, axis
    )


def change_row(name: str, test: Difference | None, words: str) -> Row:
    return Row(name, [test and test[:3]], words, test is not None and test.sure)


def axis_ticks(low: float, high: float) -> list[float]:
    if not high > low:
        return [low]
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def judged_sections(outputs: Outputs) -> list[Section]:
    masked = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    swept = "Settings of AlignRec, its graph and its encoder, measured on valid only: test was not opened for them."
    curves, heatmaps = (
        read_json(outputs.layout.study_plot(part), []) for part in ("curves", "heatmaps")
    )
    sweeps = [*results.sweep_points(curves), *results.heatmap_tables(heatmaps)]
    coded = results.semantic_id_tables(read_json(outputs.layout.code_quality, {}))
    found = (
        recommenders_section(outputs),
        probes_section(outputs),
        ablations_section(outputs),
        long_tail_section(outputs),
        Section(
            "mask",
            "Mask modality",
            "Mask modality",
            masked,
            tables=results.mask_tables(outputs.study),
        ),
        Section("settings-swept", "Hyper-parameters", "Hyper-parameters", swept, tables=sweeps),
        Section("semantic-ids", "Semantic IDs", "Semantic IDs", tables=coded),
    )
    return [section for section in found if section]


def recorded_sections(outputs: Outputs) -> list[Section]:
    tried = [] if outputs.tuning is None else [results.tuning_table(outputs.tuning)]
    settings = Section("settings", "Settings", "The same budget for every contender", tables=tried)
    dropped = [
        [stage, reason, f"{n:,}"]
        for stage, record in outputs.records.items()
        for reason, n in record["drops"].items()
    ]
    head = ["stage", "reason", "rows"]
    quality = [
        Table("Dropped or incomplete rows", "As counted by each stage.", head, dropped, texts=2)
    ] * bool(dropped)
    if (images := outputs.image_facts) is not None:
        counted = Counter(
            zip(images["status"].to_pylist(), images["reason"].to_pylist(), strict=True)
        ).items()
        most = sorted(counted, key=lambda one: (-one[1], one[0]))[:REASONS]
        note = "Outcome of fetching, one status an item; an item without an image is encoded from its text."
        rows = [[*words, f"{n:,}", f"{n / len(images):.1%}"] for words, n in most]
        quality.append(Table("Images", note, ["status", "reason", "items", "share"], rows, texts=2))
    data = Section("data", "Data", "Data quality", tables=quality)
    return [section for section in (settings, data) if section]


def recommenders_section(outputs: Outputs) -> Section:
    drawn, tables = [], []
    for comparison, label in with_labels(outputs.compared):
        means = []
        for row in (row for row in comparison.rows if MAIN in row.cells):
            cell, sd = row.cells[MAIN], row.cells[MAIN].sd or 0.0
            span = cell.mean - sd, cell.mean, cell.mean + sd
            means.append(Row(run_name(row.model, row.features), [span], format_figure(cell)))
        title = f"Test {RECALL}, {describe_seeds(r.seeds for r in comparison.rows)}"
        drawn.append(interval_chart(join_label(title, label), means, axis=RECALL))
        drawn.append(_leads_chart(comparison, outputs, label))
        tables.append(results.results_table(comparison).under(label))
    note = f"Hollow marks: not decided, p is not below {LEVEL} after Holm's correction."
    if outputs.kind == "sample" and not (outputs.ablated or outputs.study):
        note += f" {PAPER}"
    return Section(
        "results", "Recommenders", "Recommenders on these features", note, drawn, tables=tables
    )


def _leads_chart(comparison: Comparison, outputs: Outputs, label: str) -> Intervals | None:
    ours = {"model_a": RELEASED, "features_a": outputs.released, "ablation_a": "", "ablation_b": ""}
    wanted = results.rows_equal_to(
        ours | {"fingerprint": comparison.fingerprint, "metric": MAIN[0]}
    )
    found = [] if outputs.tests is None else outputs.tests.filter(wanted).to_pylist()
    if not found:
        return None
    title = (
        f"{run_name(RELEASED, outputs.released)}, minus each other run: test {RECALL}, mean over "
        f"{seeds_of(r['seeds'] for r in found)}, 95 % interval over {found[0]['n']:,} users"
    )
    rows = []
    for row in found:
        test = Difference.of(row)
        rows.append(
            change_row(
                run_name(row["model_b"], row["features_b"], row["ablation_b"]), test, test.words
            )
        )
    return interval_chart(join_label(title, label), rows, axis=f"difference in {RECALL}")


def ablations_section(outputs: Outputs) -> Section:
    drawn, tables = [], []
    for comparison, label in with_labels(outputs.ablated):
        rows = list(results.ablated_rows(comparison, outputs.tests))
        title = f"Change in test {RECALL} against the full model over {seeds_of(r.run.seeds for r in rows)}"
        changes = []
        for row in (row for row in rows if row.run.ablation):
            words = "identical" if row.repeats else row.change.words if row.change else ""
            changes.append(change_row(row.name, row.change, words))
        drawn.append(
            interval_chart(
                join_label(f"{title}, 95 % interval", label), changes, axis=f"change in {RECALL}"
            )
        )
        tables.append(results.ablation_table(rows).under(label))
    note = "AlignRec without one part, with one modality, or with one deviation of the published code undone."
    return Section("ablations", "Ablations", "Ablations", note, drawn, tables=tables)


def probes_section(outputs: Outputs) -> Section:
    controls = ", ".join(c for c in CONTROLS if c in outputs.graphs)
    note = "Features judged without a recommender, each encoder once, so no seeds. Ties count by expectation."
    note += f" Controls: {controls}." if controls else ""
    if processed := (outputs.probes or {}).get("processed"):
        note += f" {probes.describe_processing(processed)}"
        note += f" Better: raw and processed, p below {LEVEL} after Holm's correction."
    tables = [*probes.probe_tables(outputs.probes), *probes.ceiling_tables(outputs.probes)]
    trained: dict[str, dict[str, float]] = {}
    for row in outputs.compared[0].rows if outputs.compared else ():
        trained.setdefault(f"{row.model} {RECALL}", {})[row.features] = row.headline
    tables += probes.leak_tables(outputs.probes, trained)
    return Section("probes", "Probes", "Probes", note, probe_charts(outputs.probes), tables=tables)


def probe_charts(figures: Mapping[str, Any] | None) -> list[Intervals | None]:
    charts = []
    for probed in (probed for probed in probes.read_probes(figures).values() if probed.forms):
        figure, forms, rows = probed.figure, probed.forms, []
        for name in (name for name in probed.sort_sets("raw", figure) if name != CHANCE):
            spans: list[Span | None] = []
            for of in (sets.get(name, {}) for sets in forms.values()):
                value, error = of.get(figure, 0.0), of.get(f"{figure}_se", 0.0)
                spans.append((value - error, value, value + error) if of else None)
            rows.append(Row(name, spans, ", ".join(f"{span[1]:.3f}" for span in spans if span)))
        over = f"{probed.cases:,} {probed.unit}"
        title = f"{probed.probe.title} {figure}, ± standard error over {over}; dashed: chance"
        keys = list(forms) if len(forms) > 1 else ()
        charts.append(interval_chart(title, rows, keys, forms["raw"][CHANCE][figure], figure))
    return charts


def long_tail_section(outputs: Outputs) -> Section:
    tail = outputs.study.get("tail", schemas.TAIL.empty_table())
    drawn: list[Intervals | None] = []
    tables = results.lead_tables(outputs.study)
    for comparison, label in with_labels(outputs.compared):
        over = join_label(
            f"95 % interval, mean over {seeds_of(r.seeds for r in comparison.rows)}", label
        )
        order = {(r.model, r.features): at for at, r in enumerate(comparison.rows)}
        for which, title in WHOSE.items():
            wanted = results.rows_equal_to({"fingerprint": comparison.fingerprint, "slice": which})
            groups: dict[tuple[str, str], dict[str, Span]] = {}  # run -> label of a group -> recall
            for row in tail.filter(wanted).to_pylist():
                span = row["mean_low"], row["mean"], row["mean_high"]
                groups.setdefault((row["model"], row["features"]), {})[row["label"]] = span
            # the best few models, on the released features or on ids only
            best = sorted(groups, key=lambda run: order.get(run, len(order)))
            runs = [run for run in best if run[1] in (outputs.released, "none")][:LINES]
            labels, names = (
                dict.fromkeys(at for run in runs for at in groups[run]),
                UNITS.get(which, {}),
            )
            rows = [
                Row(names.get(at, at), [groups[run].get(at) for run in runs], "") for at in labels
            ]
            drawn.append(
                interval_chart(
                    f"{title}, {over}", rows, [run_name(*run) for run in runs], axis="recall"
                )
            )
        recommended = results.catalogue_table(
            outputs.slices or schemas.SLICES.empty_table(), comparison
        )
        tables += [recommended.under(label)] if recommended.rows else []
    note = "Accuracy does not show whether all users get the same few items."
    return Section("tail", "Long tail", "The long tail", note, drawn, tables=tables)
