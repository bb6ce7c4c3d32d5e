"""Registry of probes. To add one, write a file with a `Probe` (base.py) and list it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignrec.pipeline.harness.registry import Registry

if TYPE_CHECKING:
    from alignrec.pipeline.probe.base import Probe

PROBES: Registry[Probe] = Registry(
    "probes",
    {
        "zero_shot": "alignrec.pipeline.probe.behaviour:ZERO_SHOT",
        "item_cf": "alignrec.pipeline.probe.behaviour:ITEM_CF",
        "content_knn": "alignrec.pipeline.probe.behaviour:CONTENT_KNN",
        "cold_items": "alignrec.pipeline.probe.cold_items:COLD_ITEMS",
        "linear_cf": "alignrec.pipeline.probe.linear_cf:LINEAR_CF",
    },
)  # key in probes.json -> probe, in the order of the report
