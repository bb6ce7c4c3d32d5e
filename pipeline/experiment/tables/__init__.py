"""Tables of records, and the plans that say which cells they need.

One of one's own is a file, and a line here or an entry point `alignrec.plans` or `alignrec.tables`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.experiment.cell import Cell
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.store import Record

Plan = Callable[["Experiment"], Mapping[Any, "Cell"]]
"""what a plan calls a cell -> the cell; a plan of several rounds completes the first ones itself"""
Table = Callable[["Experiment", Mapping[Any, "Record"]], Mapping[str, Any]]
"""records by what the plan of the same name calls them -> file name -> table or JSON value"""
STUDIED = ("mask", "tail", "wrong", "geometry", "joint", "variants", "sweeps")
"""modules of this package that the stage `study` runs, in order"""
PLANS: Registry[Plan] = Registry(
    "plans",
    {name: f"{__name__}.{name}:plan" for name in STUDIED if name != "tail"},  # which trains nothing
)
TABLES: Registry[Table] = Registry("tables", {name: f"{__name__}.{name}:table" for name in STUDIED})
