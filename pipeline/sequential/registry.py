"""The networks that rank by a vector of the history and one of each item; a new one is a file and an entry here.

Each is made of the number of items, its parameters, what it reads of an item (items.py), and features if it reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.sequential.sasrec import SASRec

NETWORKS: Registry[type[SASRec]] = Registry(
    "sequential",
    {"sasrec": "pipeline.sequential.sasrec:SASRec", "bsarec": "pipeline.sequential.bsarec:BSARec"},
)
"""name -> network, the faster first"""
