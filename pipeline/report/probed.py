"""The probes: feature sets judged without a recommender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.probe.base import Probe
from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import LEVEL
from pipeline.report import plots, tables
from pipeline.report.gather import Evidence
from pipeline.report.plots import Intervals, Span
from pipeline.report.section import Section
from pipeline.report.tables import CONTROLS


def section(evidence: Evidence) -> Section:
    """Return a picture a probe, and below it its table."""
    figures = evidence.probes or {}
    pictures = [_picture(probe, figures, key) for key, probe in PROBES.items()]
    controls = [c for c in CONTROLS if c in evidence.edges]
    beat = f" Controls, which a useful feature set must beat: {', '.join(controls)}." if controls else ""
    note = (
        f"Features judged without a recommender, each encoder once, so no seeds.{beat} Ties count by expectation, so "
        "constant features score as chance does."
    )
    if processed := figures.get("processed"):
        note += f" Processed: centred, reduced by PCA to at most {processed['width']} numbers, whitened."
        note += f" Better: raw and processed, p below {LEVEL} after Holm's correction."
    return Section(
        "probes", "Probes", "Probes", note, [p for p in pictures if p is not None], tables=tables.probes(figures)
    )


def _picture(probe: Probe, figures: Mapping[str, Any], key: str) -> Intervals | None:
    """Return a probe's headline figure of every feature set, raw and processed; None where it was not measured."""
    forms = {"raw": figures.get(key, {}), "processed": figures.get("processed", {}).get(key, {})}
    measured = {form: of for form, of in forms.items() if of and "skipped" not in of}
    if not measured:
        return None
    first = next(iter(measured.values()))
    figure = (
        probe.figure if probe.figure in first["chance"] else [c for c in first["chance"] if not c.endswith("_se")][-1]
    )
    values = {
        form: {name: v for name, v in of.items() if isinstance(v, dict) and figure in v}
        for form, of in measured.items()
    }
    names = sorted((n for n in values["raw"] if n != "chance"), key=lambda n: -values["raw"][n][figure])
    rows = [
        plots.Row(
            name,
            [_span(of.get(name), figure) for of in values.values()],
            ", ".join(f"{of[name][figure]:.3f}".replace("0.", ".") for of in values.values() if name in of),
        )
        for name in names
    ]
    cases = next(f"{n:,} {unit}" for unit, n in first.items() if isinstance(n, int))
    title = f"{probe.title} {figure}, ± standard error over {cases}; dashed: chance"
    return plots.intervals(title, rows, list(values) if len(values) > 1 else (), first["chance"][figure])


def _span(values: Mapping[str, float] | None, figure: str) -> Span | None:
    if values is None:
        return None
    error = values.get(f"{figure}_se", 0.0)
    return values[figure] - error, values[figure], values[figure] + error
