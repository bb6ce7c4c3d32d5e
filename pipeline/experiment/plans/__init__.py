"""Plans: which cells a table needs. One of one's own is a file, and a line here or an entry point `alignrec.plans`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.experiment.cell import Cell
    from pipeline.experiment.run import Experiment

Plan = Callable[["Experiment"], Mapping[Any, "Cell"]]
"""what a plan calls a cell -> the cell; a plan of several rounds completes the first ones itself"""
PLANS: Registry[Plan] = Registry(
    "plans",
    {
        "mask": "pipeline.experiment.plans.mask:plan",
        "wrong": "pipeline.experiment.plans.wrong:plan",
        "geometry": "pipeline.experiment.plans.geometry:plan",
        "joint": "pipeline.experiment.plans.joint:plan",
        "variants": "pipeline.experiment.plans.variants:plan",
        "sweeps": "pipeline.experiment.plans.sweeps:plan",
        "generative": "pipeline.experiment.plans.generative:plan",
    },
)
"""name -> plan of the stage `study`; the table of the same name reads its records"""
