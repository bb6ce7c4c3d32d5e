"""The sections of the page with figures, in order; the same for index.html and report.md."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report import coded, judged, plots, probed, sequenced, studied, tables, tail
from pipeline.report.gather import Evidence
from pipeline.report.section import Section
from pipeline.report.tables import Table

CURVES = {"pretrain": "Pre-training", "train": "Training of AlignRec"}


def pictured(evidence: Evidence) -> list[Section]:
    """Return the sections that have a picture or figures of an experiment, without empty ones."""
    sections = (
        judged.recommenders(evidence), probed.section(evidence), judged.without_parts(evidence),
        tail.section(evidence), *studied.sections(evidence), coded.section(evidence.coded),
        sequenced.section(evidence.study),
    )  # fmt: skip
    return [s for s in sections if s]


def recorded(evidence: Evidence) -> list[Section]:
    """Return what was recorded on the way, folded as a whole on the page, without empty sections."""
    speed = tables.stages(evidence.records)
    tried = [] if evidence.tuning is None else [judged.tuned(evidence.tuning)]
    sections = (
        Section("settings", "Settings", "The same budget for every contender", tables=tried),
        *_curves(evidence),
        Section("data", "Data", "Data quality", tables=list(_quality(evidence))),
        Section("speed", "Speed", "Speed and memory", tables=[speed] if speed else []),
    )
    return [s for s in sections if s]


def _curves(evidence: Evidence) -> Iterator[Section]:
    """Yield the training curves of one encoder and one recommender."""
    note = "The horizontal axis counts epochs; the bold figure is the last one. One training, of the release."
    for stage, history in evidence.histories.items():
        yield Section(f"curves-{stage}", CURVES[stage], f"{CURVES[stage]}, epoch by epoch", note, plots.charts(history))


def _quality(evidence: Evidence) -> Iterator[Table]:
    if evidence.statuses is not None:
        note = "Outcome of fetching, one status an item; an item without an image is encoded from its text."
        yield tables.quality("Images", evidence.statuses["status"], evidence.statuses["reason"], note)
    if evidence.items is not None:
        note = "Texts of the metadata; an item without text is encoded from its image."
        yield tables.quality("Texts", evidence.items["text_status"], None, note)
    if drops := tables.drops(evidence.records):
        yield drops
