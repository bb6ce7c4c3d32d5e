"""The parts of the page that are tables and charts, in order: the same for index.html and report.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.evaluation.evidence import ablations, comparisons
from pipeline.report import judged, plots, tables
from pipeline.report.gather import Evidence
from pipeline.report.plots import Chart
from pipeline.report.tables import CONTROLS, Table

CURVES = {"pretrain": "Pre-training: masked image and language modelling", "train": "Training: AlignRec"}
HISTORY_NOTE = "Test users by the number of their train interactions; three is the least that 5-core data leaves."
TAIL_NOTE = (
    "Targets by the popularity of the item in train: tenths of the catalogue from the least (1) to the most popular "
    "(10); cold items have no train interaction at all."
)
SWEEP_NOTE = "Each cell of a map is the best valid Recall@20 among the settings tried there; it has not seen test."


@dataclass(frozen=True)
class Section:
    """A part of the page with a place in its navigation."""

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


def before(found: Evidence) -> list[Section]:
    """Return what stands before the gallery; empty parts are left out."""
    return [s for s in (_results(found), _differences(found), _ablations(found), *_served(found), _sweeps(found),
                        _probes(found)) if s]  # fmt: skip


def after(found: Evidence) -> list[Section]:
    """Return what stands after it."""
    curves = [(CURVES[stage], plots.charts(history)) for stage, history in found.histories.items()]
    note = "The horizontal axis counts epochs; the bold figure is the last one."
    speed = tables.stages(found.records)
    sections = (
        Section("curves", "Curves", "Training curves", charts=curves, note=note),
        Section("data", "Data", "Data quality", list(_quality(found))),
        Section("speed", "Speed", "Speed and memory", [speed] if speed else []),
    )
    return [s for s in sections if s]


def _results(found: Evidence) -> Section:
    rows = [] if found.results is None else comparisons(found.results)
    return Section("results", "Results", "Results", [judged.results(c) for c in rows])


def _differences(found: Evidence) -> Section:
    made = [] if found.tests is None else list(judged.tests(found.tests))
    return Section("differences", "Differences", "More than luck?", made)


def _ablations(found: Evidence) -> Section:
    rows = [] if found.results is None else ablations(found.results)
    return Section("ablations", "Ablations", "Ablations", [judged.ablations(c, found.tests) for c in rows])


def _served(found: Evidence) -> Iterator[Section]:
    """Yield the long tail and the catalogue, for the first protocol; a second one has no slices of its own."""
    rows = [] if found.results is None else comparisons(found.results)
    if found.slices is None or not rows:
        return
    k = judged.cutoff(found.slices)
    cut = judged.sliced(found.slices, rows[0], k)
    charts = [
        judged.slice_chart(cut, "popularity", "recall", f"Recall@{k} by tenth of popularity"),
        judged.slice_chart(cut, "popularity", "exposure", "share of what is shown, by tenth"),
        judged.slice_chart(cut, "history", "recall", f"Recall@{k} by train interactions of the user"),
    ]
    made = [
        judged.slice_table(
            cut, "popularity", "recall", f"Recall@{k} by popularity of the target", TAIL_NOTE, "targets"
        ),
        judged.slice_table(cut, "history", "recall", f"Recall@{k} by length of history", HISTORY_NOTE, "users"),
        judged.catalogue(cut, k),
    ]
    yield Section(
        "tail", "Long tail", "The long tail", [t for t in made if t], [("", [c for c in charts if c])],
        "Who is served, and what is shown. Charts: the best runs on content; means over seeds.",
    )  # fmt: skip


def _sweeps(found: Evidence) -> Section:
    made = [
        table
        for where, (effects, results) in found.sweeps.items()
        for table in (judged.winners(where, results), *tables.sweep(where, effects))
    ]
    return Section("sweeps", "Sweeps", "Effects of settings", made, note=SWEEP_NOTE, pair=True)


def _probes(found: Evidence) -> Section:
    controls = [c for c in CONTROLS if c in found.edges]
    told = f" {', '.join(controls)} are controls: a useful feature set must beat them." if controls else ""
    note = (
        f"Features judged without a recommender, and one with a modality hidden.{told} Ties count by expectation, so "
        "constant features score as chance does."
    )
    return Section("probes", "Probes", "Probes", tables.probes(found.probes), note=note)


def _quality(found: Evidence) -> Iterator[Table]:
    if found.statuses is not None:
        note = "How fetching ended, one status an item; an item without a picture is encoded from its text."
        yield tables.quality("Pictures", found.statuses["status"], found.statuses["reason"], note)
    if found.items is not None:
        note = "What the metadata gave; an item without text is encoded from its picture."
        yield tables.quality("Texts", found.items["text_status"], None, note)
    if drops := tables.drops(found.records):
        yield drops
