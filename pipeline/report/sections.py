"""Sections with figures, in order; the same for index.html and report.md."""

from collections.abc import Iterator

from pipeline.report import content, judged, plots, recommenders, studied
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Section
from pipeline.report.table import Table

CURVES = {"pretrain": "Pre-training", "train": "Training of AlignRec"}


def pictured(outputs: Outputs) -> list[Section]:
    sections = (
        judged.recommenders(outputs), judged.probes_section(outputs),
        judged.without_parts(outputs), studied.tail_section(outputs), *studied.sections(outputs),
        judged.codes_section(outputs.coded),
    )  # fmt: skip
    return [s for s in sections if s]


def recorded(outputs: Outputs) -> list[Section]:
    tried = [] if outputs.tuning is None else [recommenders.tuned(outputs.tuning)]
    sections = (
        Section("settings", "Settings", "The same budget for every contender", tables=tried),
        *_curves(outputs),
        Section("data", "Data", "Data quality", tables=list(_quality(outputs))),
    )
    return [s for s in sections if s]


def _curves(outputs: Outputs) -> Iterator[Section]:
    note = "The horizontal axis counts measurements; the bold figure is the last one. One training, of the release."
    for stage, what in CURVES.items():
        drawn = plots.charts(outputs.history(stage))
        yield Section(f"curves-{stage}", what, f"{what}, measurement by measurement", note, drawn)


def _quality(outputs: Outputs) -> Iterator[Table]:
    if outputs.statuses is not None:
        note = "Outcome of fetching, one status an item; an item without an image is encoded from its text."
        yield content.quality("Images", outputs.statuses["status"], outputs.statuses["reason"], note)
    if outputs.items is not None:
        note = "Texts of the metadata; an item without text is encoded from its image."
        yield content.quality("Texts", outputs.items["text_status"], None, note)
    yield from content.drops(outputs.records)
