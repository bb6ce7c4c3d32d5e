"""Tables of records, and the plans of their cells; entry points `alignrec.plans` and `alignrec.tables` add some."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.experiment.cell import Cell
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.store import Record

Plan = Callable[["Experiment"], Mapping[Any, "Cell"]]
"""returns cells by label; a plan of several rounds completes the first ones itself"""
Table = Callable[["Experiment", Mapping[Any, "Record"]], Mapping[str, Any]]
"""turns records, by the plan's labels, into tables or JSON values by file name"""
STUDIED = ("mask", "tail", "wrong", "geometry", "joint", "variants", "sweeps")
PLANS: Registry[Plan] = Registry(
    "plans",
    {name: f"{__name__}.{name}:plan" for name in STUDIED if name != "tail"},  # which trains nothing
)
TABLES: Registry[Table] = Registry("tables", {name: f"{__name__}.{name}:table" for name in STUDIED})
