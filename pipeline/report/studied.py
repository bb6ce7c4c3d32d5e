"""The study as tables and charts: mask modality, the long tail, arms of pre-training, sweeps."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipeline.report import markdown, plots
from pipeline.report.plots import Chart
from pipeline.report.tables import Table
from pipeline.study import summaries

Study = Mapping[str, pa.Table]
"""part -> its table; a part that is not there was not studied"""


def masked(mask: pa.Table) -> list[Table]:
    """Return table MASK over its seeds, a table a protocol; none for an empty one."""
    return [
        Table(
            "Mask modality",
            f"Protocol {protocol}, fingerprint {fingerprint}. AlignRec retrained with the image, or the text, of a "
            "share of the items masked. Mean ± standard deviation over seeds; the change is taken seed by seed.",
            ["feature set", "items", "test Recall@20", "change"],
            markdown.masked_rows(rows),
            texts=2,
        )
        for (protocol, fingerprint), rows in summaries.by_protocol(summaries.masked(mask))
    ]


def masked_charts(mask: pa.Table) -> list[tuple[str, list[Chart]]]:
    """Return, for each protocol, a chart a feature set: Recall@20 over the share that is masked, image and text.

    A feature set with fewer than three ratios, the whole set counted, has no chart.
    """
    charts = []
    judged = list(summaries.by_protocol(summaries.masked(mask)))
    for (protocol, _), rows in judged:
        drawn = []
        for features in dict.fromkeys(row.features for row in rows):
            own = [row for row in rows if row.features == features]
            ratios = sorted({row.ratio for row in own})
            lines = {
                f"{modality} masked": {
                    row.ratio: row.recall for row in own if row.modality in (modality, summaries.WHOLE)
                }
                for modality in dict.fromkeys(row.modality for row in own if row.modality != summaries.WHOLE)
            }
            if len(ratios) > 2:
                places = {ratio: f"{ratio:.4g}" for ratio in ratios}
                drawn.append(plots.curves(f"{features}: test Recall@20 by share masked", places, lines))
        charts.append((protocol if len(judged) > 1 else "", drawn))
    return [(heading, drawn) for heading, drawn in charts if drawn]


def summed(study: Study) -> list[Table]:
    """Return the study in few tables, for the card of a release."""
    return masked(study["mask"]) if "mask" in study else []
