"""Sections of charts and tables, in order, for both index.html and report.md."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.evaluation.evidence import MAIN, Cell, Comparison, seeds_of
from alignrec.pipeline.evaluation.statistics import LEVEL
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.report import probes, study
from alignrec.pipeline.report import recommenders as benchmark
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.probes import CHANCE, Figures, Probed
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

Span = tuple[float, float, float]  # low end, middle, high end
PAPER = (
    "Run alignrec profile paper for the paper's other models, ablations, mask modality, long tail and hyper-parameters."
)
REASONS = 20  # reasons listed, most frequent first
LINES = 4  # maximum runs in a chart of groups, best Recall@20 first
WHOSE = {"popularity": "Recall of targets by popularity of the item",
         "history": "Recall of users by number of train interactions"}  # fmt: skip
UNITS = {"popularity": {str(n): f"tenth {n}" for n in range(1, 11)} | {"cold": "cold items"}}  # kind of group -> names


class Row(NamedTuple):
    """A row of an interval chart."""

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
    tables: Sequence[Table] = ()  # folded on the page

    @property
    def pictures(self) -> list[Intervals]:
        return [picture for picture in self.drawn if picture is not None]

    def __bool__(self) -> bool:
        return bool(self.pictures or self.tables)


def interval_chart(
    title: str, rows: Sequence[Row], keys: Sequence[str] = (), reference: float | None = None, axis: str = ""
) -> Intervals | None:
    """Scale intervals to percent of a range that includes zero and `reference`, such as chance; None without spans."""
    known = [v for row in rows for span in row.spans if span is not None for v in span]
    if not known:
        return None
    low, high = min(0.0, *known), max(0.0, *known, reference or 0.0)

    def at(v: float) -> float:
        return round(100 * (v - low) / ((high - low) or 1.0), 2)

    placed = [
        row._replace(
            spans=[s and (at(s[0]), at(s[1]), at(s[2])) for s in row.spans],
            tips=[_tooltip_text(row.name, s, keys[i] if keys else "") for i, s in enumerate(row.spans)],
        )
        for row in rows
    ]
    lines = [at(v) for v in (0.0, reference) if v is not None]
    return Intervals(title, keys, placed, [(at(v), f"{v:.4g}") for v in axis_ticks(low, high)], lines, axis)


def _tooltip_text(name: str, span: Span | None, key: str) -> str:
    if span is None:
        return ""
    ends = f", {span[0]:.4g} to {span[2]:.4g}" if span[0] < span[2] else ""
    return f"{name}{f', {key}' if key else ''}: {span[1]:.4g}{ends}"


def mean_row(name: str, cell: Cell) -> Row:
    sd = cell.sd or 0.0
    return Row(name, [(cell.mean - sd, cell.mean, cell.mean + sd)], format_figure(cell))


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
    found = (
        recommenders_section(outputs),
        probes_section(outputs),
        ablations_section(outputs),
        long_tail(outputs),
        *study_sections(outputs),
    )
    coded = Section("semantic-ids", "Semantic IDs", "Semantic IDs", tables=study.semantic_ids(outputs.coded))
    return [section for section in (*found, coded) if section]


def recorded_sections(outputs: Outputs) -> list[Section]:
    tried = [] if outputs.tuning is None else [benchmark.tuning_table(outputs.tuning)]
    settings = Section("settings", "Settings", "The same budget for every contender", tables=tried)
    dropped = [
        [stage, reason, f"{n:,}"] for stage, record in outputs.records.items() for reason, n in record["drops"].items()
    ]
    head = ["stage", "reason", "rows"]
    quality = [Table("Dropped or incomplete rows", "As counted by each stage.", head, dropped, texts=2)] * bool(dropped)
    if (images := outputs.image_facts) is not None:
        quality.append(_image_table(images))
    data = Section("data", "Data", "Data quality", tables=quality)
    return [section for section in (settings, data) if section]


def _image_table(images: pa.Table) -> Table:
    counted = Counter(zip(images["status"].to_pylist(), images["reason"].to_pylist(), strict=True)).items()
    most = sorted(counted, key=lambda one: (-one[1], one[0]))[:REASONS]
    note = "Outcome of fetching, one status an item; an item without an image is encoded from its text."
    rows = [[*words, f"{n:,}", f"{n / len(images):.1%}"] for words, n in most]
    return Table("Images", note, ["status", "reason", "items", "share"], rows, texts=2)


def recommenders_section(outputs: Outputs) -> Section:
    compared = list(with_labels(outputs.compared))
    drawn = [
        chart for one, label in compared for chart in (_means_chart(one, label), _leads_chart(one, outputs, label))
    ]
    tables = [benchmark.results_table(one).under(label) for one, label in compared]
    note = f"Hollow marks: not decided, p is not below {LEVEL} after Holm's correction."
    if outputs.kind == "sample" and not (outputs.ablated or outputs.study):
        note += f" {PAPER}"
    return Section("results", "Recommenders", "Recommenders on these features", note, drawn, tables=tables)


def _means_chart(comparison: Comparison, label: str) -> Intervals | None:
    rows = [mean_row(run_name(r.model, r.features), r.cells[MAIN]) for r in comparison.rows if MAIN in r.cells]
    title = f"Test {RECALL}, {describe_seeds(r.seeds for r in comparison.rows)}"
    return interval_chart(join_label(title, label), rows, axis=RECALL)


def _leads_chart(comparison: Comparison, outputs: Outputs, label: str) -> Intervals | None:
    found = benchmark.lead_rows(comparison, outputs.tests, outputs.released)
    if not found:
        return None
    title = (
        f"{run_name(RELEASED, outputs.released)}, minus each other run: test {RECALL}, mean over "
        f"{seeds_of(r['seeds'] for r in found)}, 95 % interval over {found[0]['n']:,} users"
    )
    tests = ((benchmark.side_name(row, "b"), Difference.of(row)) for row in found)
    rows = [change_row(name, test, test.words) for name, test in tests]
    return interval_chart(join_label(title, label), rows, axis=f"difference in {RECALL}")


def ablations_section(outputs: Outputs) -> Section:
    drawn, tables = [], []
    for comparison, label in with_labels(outputs.ablated):
        rows = list(benchmark.ablated_rows(comparison, outputs.tests))
        title = f"Change in test {RECALL} against the full model over {seeds_of(r.run.seeds for r in rows)}"
        changes = [change_row(r.name, r.change, r.words) for r in rows if r.run.ablation]
        drawn.append(interval_chart(join_label(f"{title}, 95 % interval", label), changes, axis=f"change in {RECALL}"))
        tables.append(benchmark.ablation_table(rows).under(label))
    note = "AlignRec with one part left out, with one modality, or with one habit of the published code undone."
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
    return [_probe_chart(probed) for probed in probes.read_probes(figures).values() if probed.forms]


def _probe_chart(probed: Probed) -> Intervals | None:
    figure, forms = probed.figure, probed.forms
    rows = [
        Row(name, [_error_span(of.get(name), figure) for of in forms.values()], probed.both(name, figure))
        for name in probed.ordered("raw", figure) if name != CHANCE
    ]  # fmt: skip
    over = f"{probed.cases:,} {probed.unit}"
    title = f"{probed.probe.title} {figure}, ± standard error over {over}; dashed: chance"
    return interval_chart(title, rows, list(forms) if len(forms) > 1 else (), forms["raw"][CHANCE][figure], figure)


def _error_span(values: Figures | None, figure: str) -> Span | None:
    if values is None:
        return None
    error = values.get(f"{figure}_se", 0.0)
    return values[figure] - error, values[figure], values[figure] + error


def long_tail(outputs: Outputs) -> Section:
    table = outputs.study.get("tail", schemas.TAIL.empty_table())
    drawn: list[Intervals | None] = []
    tables = study.lead_tables(table)
    for comparison, label in with_labels(outputs.compared):
        over = join_label(f"95 % interval, mean over {seeds_of(r.seeds for r in comparison.rows)}", label)
        for which in study.SLICES:
            groups = study.recall_groups(table, comparison, which)
            drawn.append(groups_chart(groups, f"{WHOSE[which]}, {over}", outputs.released, UNITS.get(which, {})))
        recommended = study.catalogue_table(outputs.slices or schemas.SLICES.empty_table(), comparison)
        tables += [recommended.under(label)] if recommended.rows else []
    note = "A recommender can be right by showing everybody the same few items."
    return Section("tail", "Long tail", "The long tail", note, drawn, tables=tables)


def groups_chart(groups: study.Groups, title: str, released: str, names: Mapping[str, str] = {}) -> Intervals | None:
    """Chart recall by group for the best few models on the released features or on ids only."""
    runs = [run for run in groups if run[1] in (released, "none")][:LINES]
    labels = list(dict.fromkeys(label for run in runs for label in groups[run]))
    rows = [Row(names.get(label, label), [groups[run].get(label) for run in runs], "") for label in labels]
    return interval_chart(title, rows, [run_name(*run) for run in runs], axis="recall")


def study_sections(outputs: Outputs) -> Iterator[Section]:
    mask = outputs.study.get("mask", schemas.STUDY["mask"].empty_table())
    note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    yield Section("mask", "Mask modality", "Mask modality", note, tables=study.mask_tables(mask))
    curves, heatmaps = (outputs.plotted(part) for part in ("curves", "heatmaps"))
    note = "Settings of AlignRec, its graph and its encoder, measured on valid only: test was not opened for them."
    heading, tables = "Hyper-parameters", [*study.sweep_points(curves), *study.heatmap_tables(heatmaps)]
    yield Section("settings-swept", heading, heading, note, tables=tables)
