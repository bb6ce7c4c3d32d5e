"""The sections of the page with tables and charts, in order; the same for index.html and report.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa

from pipeline.evaluation.evidence import Comparison, ablations, comparisons
from pipeline.report import judged, plots, sequenced, studied, tables
from pipeline.report.gather import Evidence
from pipeline.report.plots import Chart
from pipeline.report.tables import CONTROLS, Table

CURVES = {"pretrain": "Pre-training: masked image and language modelling", "train": "Training: AlignRec"}
HISTORY_NOTE = "Test users by the number of their train interactions; 5-core data has at least three."
TAIL_NOTE = (
    "Targets by the popularity of the item in train: tenths of the catalogue from the least (1) to the most popular "
    "(10); cold items have no train interaction at all."
)
SWEEP_NOTE = "Each cell of a map is the best valid Recall@20 among the settings tried there; it has not seen test."


@dataclass(frozen=True)
class Section:
    """A section of the page, with a link in its navigation."""

    anchor: str
    link: str
    heading: str
    tables: list[Table] = field(default_factory=list)
    charts: list[tuple[str, list[Chart]]] = field(default_factory=list)
    """heading -> charts, above the tables"""
    note: str = ""
    pair: bool = False
    """tables stand side by side where there is room"""

    def __bool__(self) -> bool:
        return bool(self.tables or any(charts for _, charts in self.charts))


def before(evidence: Evidence) -> list[Section]:
    """Return the sections before the gallery, without empty ones."""
    sections = (
        _results(evidence), _differences(evidence), _ablations(evidence), *_served(evidence), _tuning(evidence),
        _sweeps(evidence), _probes(evidence), *_study(evidence),
    )  # fmt: skip
    return [s for s in sections if s]


def after(evidence: Evidence) -> list[Section]:
    """Return the sections after the gallery, without empty ones."""
    curves = [(CURVES[stage], plots.charts(history)) for stage, history in evidence.histories.items()]
    note = "The horizontal axis counts epochs; the bold figure is the last one."
    speed = tables.stages(evidence.records)
    sections = (
        Section("curves", "Curves", "Training curves", charts=curves, note=note),
        Section("data", "Data", "Data quality", list(_quality(evidence))),
        Section("speed", "Speed", "Speed and memory", [speed] if speed else []),
    )
    return [s for s in sections if s]


def _results(evidence: Evidence) -> Section:
    rows = [] if evidence.results is None else comparisons(evidence.results)
    return Section("results", "Results", "Results", [judged.results(c) for c in rows])


def _differences(evidence: Evidence) -> Section:
    tests = [] if evidence.tests is None else list(judged.tests(evidence.tests))
    return Section("differences", "Differences", "Paired tests", tests)


def _ablations(evidence: Evidence) -> Section:
    rows = [] if evidence.results is None else ablations(evidence.results)
    return Section(
        "ablations", "Ablations", "Ablations", [_named(judged.ablations(c, evidence.tests), c, rows) for c in rows]
    )


def _served(evidence: Evidence) -> Iterator[Section]:
    """Yield the long tail and the catalogue under each protocol."""
    rows = [] if evidence.results is None else comparisons(evidence.results)
    if evidence.slices is None or not rows:
        return
    tail = studied.tails(evidence.study["tail"]) if "tail" in evidence.study else []
    served = [_served_under(comparison, evidence.slices, rows, bool(tail)) for comparison in rows]
    note = "Figures by user history and item popularity. Charts: the best runs on content; means over seeds."
    tables_of, charts_of = ([part for parts in both for part in parts] for both in zip(*served, strict=True))
    yield Section("tail", "Long tail", "The long tail", [*tail, *tables_of], charts_of, note)


def _served_under(
    comparison: Comparison, table: pa.Table, every: list[Comparison], tested: bool
) -> tuple[list[Table], list[tuple[str, list[Chart]]]]:
    k = judged.cutoff(table)
    slices = judged.sliced(table, comparison, k)
    charts = [
        judged.slice_chart(slices, "popularity", "recall", f"Recall@{k} by tenth of popularity"),
        judged.slice_chart(slices, "popularity", "exposure", "exposure: share of recommended items, by tenth"),
        judged.slice_chart(slices, "history", "recall", f"Recall@{k} by train interactions of the user"),
    ]
    means = [  # the study has them with intervals
        judged.slice_table(
            slices, "popularity", "recall", f"Recall@{k} by popularity of the target", TAIL_NOTE, "targets"
        ),
        judged.slice_table(slices, "history", "recall", f"Recall@{k} by length of history", HISTORY_NOTE, "users"),
    ]
    of_slices = [*([] if tested else means), judged.catalogue(slices, k)]
    heading = comparison.protocol if len(every) > 1 else ""
    return [_named(t, comparison, every) for t in of_slices if t], [(heading, [c for c in charts if c])]


def _named(table: Table, comparison: Comparison, every: list[Comparison]) -> Table:
    """Return a table whose heading names the protocol, where there are several."""
    return replace(table, heading=f"{table.heading}, {comparison.protocol}") if len(every) > 1 else table


def _tuning(evidence: Evidence) -> Section:
    tried = [] if evidence.tuning is None else [judged.tuned(evidence.tuning)]
    return Section("settings", "Settings", "The same budget for every contender", tried)


def _sweeps(evidence: Evidence) -> Section:
    of_sweeps = [
        table
        for where, (effects, results) in evidence.sweeps.items()
        for table in (judged.winners(where, results), *tables.sweep(where, effects))
    ]
    return Section("sweeps", "Sweeps", "Effects of settings", of_sweeps, note=SWEEP_NOTE, pair=True)


def _probes(evidence: Evidence) -> Section:
    controls = [c for c in CONTROLS if c in evidence.edges]
    beat = f" {', '.join(controls)} are controls: a useful feature set must beat them." if controls else ""
    note = (
        f"Features judged without a recommender.{beat} Ties count by expectation, so "
        "constant features score as chance does."
    )
    if processed := (evidence.probes or {}).get("processed"):
        note += (
            f" Processed features are centred, reduced by PCA to at most {processed['width']} numbers, and whitened, "
            "all in the same way. A set is called better than another only if it is so both raw and processed "
            "(paired bootstrap, p below 0.05 after Holm's correction)."
        )
    return Section("probes", "Probes", "Probes", tables.probes(evidence.probes), note=note)


def _study(evidence: Evidence) -> Iterator[Section]:
    study = evidence.study
    if "mask" in study:
        note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
        charts, of_masks = studied.masked_charts(study["mask"]), studied.masked(study["mask"])
        yield Section("mask", "Mask modality", "Mask modality", of_masks, charts, note)
    if "arms" in study:
        note = "Encoders that were pre-trained with other keys of `pretrain`, each against the recipe that is released."
        yield Section("arms", "Arms", "Arms of pre-training", studied.arms(study["arms"]), note=note)
    note = "What semantic IDs are worth to a recommender that writes them, beside one on item ids."
    yield Section("generative", "Codes in use", "Codes in use", sequenced.used(study), note=note)
    note = "Settings of AlignRec, its graph and its encoder, measured on valid alone: test was not opened for them."
    curves, of_sweeps = studied.sweep_charts(evidence.curves), studied.sweeps(evidence.curves, evidence.heatmaps)
    yield Section("settings-swept", "Hyper-parameters", "Hyper-parameters", of_sweeps, [("", curves)], note, pair=True)


def _quality(evidence: Evidence) -> Iterator[Table]:
    if evidence.statuses is not None:
        note = "Outcome of fetching, one status an item; an item without an image is encoded from its text."
        yield tables.quality("Images", evidence.statuses["status"], evidence.statuses["reason"], note)
    if evidence.items is not None:
        note = "Texts of the metadata; an item without text is encoded from its image."
        yield tables.quality("Texts", evidence.items["text_status"], None, note)
    if drops := tables.drops(evidence.records):
        yield drops
