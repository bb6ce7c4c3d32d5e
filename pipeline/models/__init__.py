"""The recommenders, one file each with its parameters; a new one is a file and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.models.base import Recommender

MODELS: Registry[type[Recommender]] = Registry(
    "models",
    {
        "itemknn": "pipeline.models.itemknn:ItemKNN",
        "contentknn": "pipeline.models.itemknn:ContentKNN",
        "gfcf": "pipeline.models.gfcf:GFCF",
        "chebycf": "pipeline.models.chebycf:ChebyCF",
        "ials": "pipeline.models.ials:IALS",
        "slim": "pipeline.models.slim:SLIM",
        "ease": "pipeline.models.ease:EASE",
        "cease": "pipeline.models.cease:CEASE",
        "addease": "pipeline.models.cease:AddEASE",
        "l3ae": "pipeline.models.l3ae:L3AE",
        "bpr": "pipeline.models.bpr:BPR",
        "lightgcn": "pipeline.models.lightgcn:LightGCN",
        "vbpr": "pipeline.models.vbpr:VBPR",
        "mmgcn": "pipeline.models.mmgcn:MMGCN",
        "grcn": "pipeline.models.grcn:GRCN",
        "dualgnn": "pipeline.models.dualgnn:DualGNN",
        "slmrec": "pipeline.models.slmrec:SLMRec",
        "bm3": "pipeline.models.bm3:BM3",
        "bm3-improved": "pipeline.models.bm3:ImprovedBM3",
        "lattice": "pipeline.models.lattice:LATTICE",
        "freedom": "pipeline.models.freedom:FREEDOM",
        "mgcn": "pipeline.models.mgcn:MGCN",
        "lgmrec": "pipeline.models.lgmrec:LGMRec",
        "gume": "pipeline.models.gume:GUME",
        "alignrec": "pipeline.models.alignrec:AlignRec",
    },
)
"""name -> recommender, the faster first"""
RELEASED = "alignrec"
"""the recommender that is trained for the release, and that ablations are of"""
