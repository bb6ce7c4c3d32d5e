"""Recommenders, one file each with its parameters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from alignrec.pipeline.runtime.registry import Registry, fault_of_class

if TYPE_CHECKING:
    from alignrec.pipeline.models.base import Recommender

MODELS: Registry[type[Recommender]] = Registry(
    "models",
    {
        "itemknn": "alignrec.pipeline.models.itemknn:ItemKNN",
        "contentknn": "alignrec.pipeline.models.itemknn:ContentKNN",
        "ease": "alignrec.pipeline.models.ease:EASE",
        "l3ae": "alignrec.pipeline.models.ease:L3AE",
        "bpr": "alignrec.pipeline.models.bpr:BPR",
        "lightgcn": "alignrec.pipeline.models.lightgcn:LightGCN",
        "vbpr": "alignrec.pipeline.models.bpr:VBPR",
        "mmgcn": "alignrec.pipeline.models.mmgcn:MMGCN",
        "grcn": "alignrec.pipeline.models.grcn:GRCN",
        "dualgnn": "alignrec.pipeline.models.dualgnn:DualGNN",
        "slmrec": "alignrec.pipeline.models.slmrec:SLMRec",
        "bm3": "alignrec.pipeline.models.bm3:BM3",
        "bm3-improved": "alignrec.pipeline.models.bm3:ImprovedBM3",
        "lattice": "alignrec.pipeline.models.lattice:LATTICE",
        "freedom": "alignrec.pipeline.models.freedom:FREEDOM",
        "mgcn": "alignrec.pipeline.models.mgcn:MGCN",
        "alignrec": "alignrec.pipeline.models.alignrec:AlignRec",
        "alignrec-ablation": "alignrec.pipeline.evaluation.benchmark.ablations:AblatedAlignRec",
    },
    partial(fault_of_class, base="alignrec.pipeline.models.base:Recommender", settings="Params"),
)  # name -> recommender, fastest first
RELEASED = "alignrec"  # recommender used for releases
ABLATED = "alignrec-ablation"  # recommender that trains the rows of `benchmark.ablations`
# name -> the authors' spelling, where it differs from the class name
TITLES = {"bm3-improved": "BM3, improved", ABLATED: "AlignRec, ablated"}
# use of content -> recommenders, by the taxonomy of AlignRec's paper: features as an input,
# aggregated over graphs only, or aligned by losses that are optimised jointly; AlignRec aligns in
# stages
CONTENT_USES = {
    "ids": (),
    "a: input": ("contentknn", "vbpr", "l3ae"),
    "b: over graphs": ("mmgcn", "grcn", "dualgnn", "lattice", "freedom"),
    "c: in the loss": ("slmrec", "bm3", "bm3-improved", "mgcn"),
    "staged": (RELEASED, ABLATED),
}


def content_use(model: str, features: str) -> str:
    """Return how a recommender uses content, a key of CONTENT_USES; empty if unknown."""
    return (
        "ids"
        if features == "none"
        else next((name for name, models in CONTENT_USES.items() if model in models), "")
    )
