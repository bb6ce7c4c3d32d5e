"""Which parameters each recommender has, without loading torch."""

from collections.abc import Mapping

from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.params import (
    AlignRecParams,
    BM3Params,
    BPRParams,
    ClosedParams,
    DualGNNParams,
    FREEDOMParams,
    ItemKNNParams,
    L3AEParams,
    LATTICEParams,
    LightGCNParams,
    MGCNParams,
    Multimodal,
    Regularised,
    SLMRecParams,
    Train,
)

# of the recommenders here; those of other packages and of the ablations come with their model
PARAMS: Mapping[str, type[Train]] = {
    "itemknn": ItemKNNParams,
    "contentknn": Train,
    "ease": ClosedParams,
    "l3ae": L3AEParams,
    "bpr": BPRParams,
    "lightgcn": LightGCNParams,
    "vbpr": Regularised,
    "mmgcn": Multimodal,
    "grcn": Multimodal,
    "dualgnn": DualGNNParams,
    "slmrec": SLMRecParams,
    "bm3": BM3Params,
    "bm3-improved": BM3Params,
    "lattice": LATTICEParams,
    "freedom": FREEDOMParams,
    "mgcn": MGCNParams,
    RELEASED: AlignRecParams,
}


def params_of(model: str) -> type[Train]:
    """Return the type of a recommender's parameters."""
    return PARAMS[model] if model in PARAMS else MODELS[model].Params
