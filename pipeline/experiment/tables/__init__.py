"""Tables of records. One of one's own is a file, and a line here or an entry point `alignrec.tables`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.store import Record

Table = Callable[["Experiment", Mapping[Any, "Record"]], Mapping[str, Any]]
"""records by what the plan of the same name calls them -> file name -> table or JSON value"""
TABLES: Registry[Table] = Registry(
    "tables",
    {
        "mask": "pipeline.experiment.tables.mask:table",
        "tail": "pipeline.experiment.tables.tail:table",
        "wrong": "pipeline.experiment.tables.wrong:table",
        "geometry": "pipeline.experiment.tables.geometry:table",
        "joint": "pipeline.experiment.tables.joint:table",
        "variants": "pipeline.experiment.tables.variants:table",
        "sweeps": "pipeline.experiment.tables.sweeps:table",
        "generative": "pipeline.experiment.tables.generative:table",
    },
)
"""name -> table of the stage `study`, in order"""
