"""The probes: feature sets judged without a recommender."""

from collections.abc import Mapping
from typing import Any

from pipeline.facts import probes
from pipeline.facts.outputs import Outputs
from pipeline.facts.probes import CHANCE, Figures, Probed
from pipeline.facts.words import CONTROLS
from pipeline.probe.verdicts import LEVEL
from pipeline.report import plots
from pipeline.report.plots import Intervals, Section, Span


def section(outputs: Outputs) -> Section:
    """Return a picture a probe, and below it its table."""
    controls = [c for c in CONTROLS if c in outputs.graphs]
    beat = f" Controls, which a useful feature set must beat: {', '.join(controls)}." if controls else ""
    note = (
        f"Features judged without a recommender, each encoder once, so no seeds.{beat} Ties count by expectation, so "
        "constant features score as chance does."
    )
    if processed := (outputs.probes or {}).get("processed"):
        note += f" {probes.processing(processed)}"
        note += f" Better: raw and processed, p below {LEVEL} after Holm's correction."
    drawn = pictures(outputs.probes)
    return Section(
        "probes",
        "Probes",
        "Probes",
        note,
        drawn,
        tables=[*probes.tables(outputs.probes), *probes.tried_tables(outputs.probes)],
    )


def pictures(figures: Mapping[str, Any] | None) -> list[Intervals | None]:
    """Return a picture a probe, from the content of probes.json."""
    return [_picture(probed) for probed in probes.read(figures).values()]


def _picture(probed: Probed) -> Intervals | None:
    """Return a probe's headline figure of every feature set, raw and processed; None where it was not measured."""
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
