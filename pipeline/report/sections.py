"""Sections of charts and tables, in the page's order; the same for index.html and report.md."""

from collections.abc import Iterator, Mapping
from typing import Any

import schemas
from pipeline.evaluation.evidence import MAIN, Comparison, seeds_of
from pipeline.evaluation.statistics import LEVEL
from pipeline.models import RELEASED
from pipeline.report import content, plots, probes, study, tail, words
from pipeline.report import recommenders as benchmark
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Intervals, Section, Span
from pipeline.report.probes import CHANCE, Figures, Probed
from pipeline.report.table import Difference, Table
from pipeline.report.words import CONTROLS, RECALL, labelled

LINES = 4
"""most runs in a chart of groups, best Recall@20 first"""
WHOSE = {"popularity": "Recall of targets by popularity of the item",
         "history": "Recall of users by number of train interactions"}  # fmt: skip
UNITS = {str(n): f"tenth {n}" for n in range(1, 11)} | {"cold": "cold items"}


def judged(outputs: Outputs) -> list[Section]:
    """Return the sections that judge features and recommenders."""
    found = (recommenders(outputs), probed(outputs), ablations(outputs), long_tail(outputs), *studied(outputs))
    coded = Section("semantic-ids", "Semantic IDs", "Semantic IDs", tables=study.semantic_ids(outputs.coded))
    return [section for section in (*found, coded) if section]


def recorded(outputs: Outputs) -> list[Section]:
    """Return the sections on how the outputs were made."""
    tried = [] if outputs.tuning is None else [benchmark.tuned(outputs.tuning)]
    settings = Section("settings", "Settings", "The same budget for every contender", tables=tried)
    data = Section("data", "Data", "Data quality", tables=list(_quality(outputs)))
    return [section for section in (settings, data) if section]


def _quality(outputs: Outputs) -> Iterator[Table]:
    if (images := outputs.image_facts) is not None:
        note = "Outcome of fetching, one status an item; an item without an image is encoded from its text."
        yield content.quality("Images", images["status"], images["reason"], note)
    if outputs.items is not None:
        note = "Texts of the metadata; an item without text is encoded from its image."
        yield content.quality("Texts", outputs.items["text_status"], None, note)
    yield from content.drops(outputs.records)


def recommenders(outputs: Outputs) -> Section:
    compared = list(labelled(outputs.compared))
    drawn = [chart for one, label in compared for chart in (_means(one, label), _leads(one, outputs, label))]
    paired = [] if outputs.tests is None else list(benchmark.tests(outputs.tests))
    tables = [benchmark.results(one).under(label) for one, label in compared] + paired
    note = f"Hollow marks: not decided, p is not below {LEVEL} after Holm's correction."
    return Section("results", "Recommenders", "Recommenders on these features", note, drawn, tables=tables)


def _means(comparison: Comparison, label: str) -> Intervals | None:
    rows = [plots.mean(words.run(r.model, r.features), r.cells[MAIN]) for r in comparison.rows if MAIN in r.cells]
    title = f"Test {RECALL}, {words.spread(r.seeds for r in comparison.rows)}"
    return plots.intervals(words.after(title, label), rows, axis=RECALL)


def _leads(comparison: Comparison, outputs: Outputs, label: str) -> Intervals | None:
    """Return the lead of AlignRec on the released features over each run it was tested against."""
    found = benchmark.leads(comparison, outputs.tests, outputs.released)
    if not found:
        return None
    title = (
        f"{words.run(RELEASED, outputs.released)}, minus each other run: test {RECALL}, mean over "
        f"{seeds_of(r['seeds'] for r in found)}, 95 % interval over {found[0]['n']:,} users"
    )
    tests = ((benchmark.side(row, "b"), Difference.of(row)) for row in found)
    rows = [plots.change(name, test, test.words) for name, test in tests]
    return plots.intervals(words.after(title, label), rows, axis=f"difference in {RECALL}")


def ablations(outputs: Outputs) -> Section:
    drawn, tables = [], []
    for comparison, label in labelled(outputs.ablated):
        rows = list(benchmark.ablated(comparison, outputs.tests))
        title = f"Change in test {RECALL} against the full model over {seeds_of(r.run.seeds for r in rows)}"
        changes = [plots.change(r.name, r.change, r.words) for r in rows if r.run.ablation]
        drawn.append(
            plots.intervals(words.after(f"{title}, 95 % interval", label), changes, axis=f"change in {RECALL}")
        )
        tables.append(benchmark.ablations(rows).under(label))
    note = "AlignRec with one part left out, with one modality, or with one habit of the published code undone."
    return Section("ablations", "Ablations", "Ablations", note, drawn, tables=tables)


def probed(outputs: Outputs) -> Section:
    controls = ", ".join(c for c in CONTROLS if c in outputs.graphs)
    note = "Features judged without a recommender, each encoder once, so no seeds. Ties count by expectation."
    note += f" Controls: {controls}." if controls else ""
    if processed := (outputs.probes or {}).get("processed"):
        note += f" {probes.processing(processed)} Better: raw and processed, p below {LEVEL} after Holm's correction."
    tables = [*probes.tables(outputs.probes), *probes.ceiling(outputs.probes)]
    return Section("probes", "Probes", "Probes", note, probe_charts(outputs.probes), tables=tables)


def probe_charts(figures: Mapping[str, Any] | None) -> list[Intervals | None]:
    """Return each probe's headline figure of every feature set, raw and processed."""
    return [_probe_chart(probed) for probed in probes.read(figures).values() if probed.forms]


def _probe_chart(probed: Probed) -> Intervals | None:
    figure, forms = probed.figure, probed.forms
    rows = [
        plots.Row(name, [_span(of.get(name), figure) for of in forms.values()], probed.both(name, figure))
        for name in probed.ordered("raw", figure) if name != CHANCE
    ]  # fmt: skip
    over = f"{probed.cases:,} {probed.unit}"
    title = f"{probed.probe.title} {figure}, ± standard error over {over}; dashed: chance"
    return plots.intervals(title, rows, list(forms) if len(forms) > 1 else (), forms["raw"][CHANCE][figure], figure)


def _span(values: Figures | None, figure: str) -> Span | None:
    if values is None:
        return None
    error = values.get(f"{figure}_se", 0.0)
    return values[figure] - error, values[figure], values[figure] + error


def long_tail(outputs: Outputs) -> Section:
    table = outputs.study.get("tail", schemas.TAIL.empty_table())
    drawn: list[Intervals | None] = []
    tables = tail.leads(table)
    for comparison, label in labelled(outputs.compared):
        over = words.after(f"95 % interval, mean over {seeds_of(r.seeds for r in comparison.rows)}", label)
        for which in tail.SLICES:
            groups = tail.groups(table, comparison, which)
            drawn.append(groups_chart(groups, f"{WHOSE[which]}, {over}", outputs.released))
        k, slices = tail.sliced(outputs.slices, comparison)
        means = [of for which in tail.SLICES for of in tail.means(slices, which, k)]
        tables += [of.under(label) for of in (*tail.catalogue(slices, k), *means)]
    note = "A recommender can be right by showing everybody the same few items."
    return Section("tail", "Long tail", "The long tail", note, drawn, tables=tables)


def groups_chart(groups: tail.Groups, title: str, released: str) -> Intervals | None:
    """Return recall of each group under the best few models on the released features or on ids only."""
    runs = [run for run in groups if run[1] in (released, "none")][:LINES]
    labels = list(dict.fromkeys(label for run in runs for label in groups[run]))
    rows = [plots.Row(UNITS.get(label, label), [groups[run].get(label) for run in runs], "") for label in labels]
    return plots.intervals(title, rows, [words.run(*run) for run in runs], axis="recall")


def studied(outputs: Outputs) -> Iterator[Section]:
    mask = outputs.study.get("mask", schemas.STUDY["mask"].empty_table())
    note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    yield Section("mask", "Mask modality", "Mask modality", note, tables=study.masked(mask))
    curves, heatmaps = (outputs.plotted(part) for part in ("curves", "heatmaps"))
    note = "Settings of AlignRec, its graph and its encoder, measured on valid only: test was not opened for them."
    heading, maps, points = "Hyper-parameters", study.heatmaps(heatmaps), study.sweep_points(curves)
    yield Section("settings-swept", heading, heading, note, (), maps, points)
