"""Sections of recommenders with their paired tests, ablations, probes, semantic IDs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.evidence import MAIN, Comparison, seeds_of
from pipeline.evaluation.statistics import LEVEL
from pipeline.models import RELEASED
from pipeline.report import ceiling, codes, plots, probes, words
from pipeline.report import recommenders as facts
from pipeline.report.codes import Judged
from pipeline.report.difference import Difference
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Intervals, Section, Span
from pipeline.report.probes import CHANCE, Figures, Probed
from pipeline.report.words import CONTROLS, labelled


def recommenders(outputs: Outputs) -> Section:
    compared = list(labelled(outputs.compared))
    drawn = [draw(one, outputs, label) for one, label in compared for draw in (_means, leads)]
    paired = [] if outputs.tests is None else list(facts.tests(outputs.tests))
    tables = [facts.results(one).under(label) for one, label in compared] + paired
    note = f"Hollow marks: not decided, p is not below {LEVEL} after Holm's correction."
    return Section("results", "Recommenders", "Recommenders on these features", note, drawn, tables=tables)


def _means(comparison: Comparison, _: Outputs, label: str) -> Intervals | None:
    rows = [plots.mean(words.run(r.model, r.features), r.cells[MAIN]) for r in comparison.rows if MAIN in r.cells]
    title = f"Test {words.RECALL}, {words.spread(r.seeds for r in comparison.rows)}"
    return plots.intervals(words.after(title, label), rows, axis=words.RECALL)


def leads(comparison: Comparison, outputs: Outputs, label: str) -> Intervals | None:
    """Return the lead of AlignRec on the released features over each run it was tested against."""
    found = facts.leads(comparison, outputs.tests, outputs.released)
    if not found:
        return None
    title = (
        f"{words.run(RELEASED, outputs.released)}, minus each other run: test {words.RECALL}, mean over "
        f"{seeds_of(r['seeds'] for r in found)}, 95 % interval over {found[0]['n']:,} users"
    )
    rows = [plots.change(facts.side(row, "b"), Difference.of(row)) for row in found]
    return plots.intervals(words.after(title, label), rows, axis=f"difference in {words.RECALL}")


def without_parts(outputs: Outputs) -> Section:
    drawn, tables = [], []
    for comparison, label in labelled(outputs.ablated):
        rows = list(facts.ablated(comparison, outputs.tests))
        seeds = seeds_of(r.run.seeds for r in rows)
        title = f"Change in test {words.RECALL} against the full model over {seeds}, 95 % interval"
        changes = [plots.change(r.name, r.change, r.words) for r in rows if r.run.ablation]
        drawn.append(plots.intervals(words.after(title, label), changes, axis=f"change in {words.RECALL}"))
        tables.append(facts.ablations(rows).under(label))
    note = "AlignRec with one part left out, with one modality, or with one habit of the published code undone."
    return Section("ablations", "Ablations", "Ablations", note, drawn, tables=tables)


def codes_section(judged: Sequence[Judged]) -> Section:
    note = "Items as a few discrete codes, from coarse to fine, judged without training a generator."
    return Section("semantic-ids", codes.HEADING, codes.HEADING, note, tables=codes.tables(judged))


def probes_section(outputs: Outputs) -> Section:
    controls = [c for c in CONTROLS if c in outputs.graphs]
    beat = f" Controls, which a useful feature set must beat: {', '.join(controls)}." if controls else ""
    note = (
        f"Features judged without a recommender, each encoder once, so no seeds.{beat} Ties count by expectation, so "
        "constant features score as chance does."
    )
    if processed := (outputs.probes or {}).get("processed"):
        note += f" {probes.processing(processed)} Better: raw and processed, p below {LEVEL} after Holm's correction."
    tables = [of for make in (probes.tables, ceiling.tables) for of in make(outputs.probes)]
    return Section("probes", "Probes", "Probes", note, pictures(outputs.probes), tables=tables)


def pictures(figures: Mapping[str, Any] | None) -> list[Intervals | None]:
    return [_picture(probed) for probed in probes.read(figures).values()]


def _picture(probed: Probed) -> Intervals | None:
    """Return a probe's headline figure of every feature set, raw and processed; None if not measured."""
    if not probed.forms:
        return None
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
