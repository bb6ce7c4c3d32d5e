"""The benchmark as sections: recommenders with their paired tests, and ablations."""

from __future__ import annotations

from pipeline.evaluation.evidence import MAIN, Comparison, seeds_of
from pipeline.facts import recommenders as facts
from pipeline.facts import words
from pipeline.facts.difference import Difference
from pipeline.facts.outputs import Outputs
from pipeline.facts.words import labelled
from pipeline.models import RELEASED
from pipeline.probe.verdicts import LEVEL
from pipeline.report import plots
from pipeline.report.plots import Intervals
from pipeline.report.section import Section


def recommenders(outputs: Outputs) -> Section:
    """Return every run under each protocol, and AlignRec's lead on the released features."""
    compared = list(labelled(outputs.compared))
    drawn = [draw(one, outputs, label) for one, label in compared for draw in (_means, leads)]
    paired = [] if outputs.tests is None else list(facts.tests(outputs.tests))
    tables = [facts.results(one).under(label) for one, label in compared] + paired
    note = f"Hollow marks: not decided, p is not below {LEVEL} after Holm's correction."
    return Section("results", "Recommenders", "Recommenders on these features", note, drawn, tables=tables)


def _means(comparison: Comparison, _: Outputs, label: str) -> Intervals | None:
    """Return test Recall@20 of every run."""
    rows = [plots.mean(words.run(r.model, r.features), r.cells[MAIN]) for r in comparison.rows if MAIN in r.cells]
    title = f"Test {words.RECALL}, mean ± sd over {seeds_of(r.seeds for r in comparison.rows)}"
    return plots.intervals(words.after(title, label), rows, axis=words.RECALL)


def leads(comparison: Comparison, outputs: Outputs, label: str) -> Intervals | None:
    """Return what AlignRec on the released features has more than each other run it was tested against."""
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
    """Return the ablations under each protocol."""
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
