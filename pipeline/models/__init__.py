"""The recommenders, one file each; a new one is a file, an entry here, and in config Model and Overrides."""

from pipeline.models.alignrec import AlignRec
from pipeline.models.base import Recommender
from pipeline.models.bm3 import BM3
from pipeline.models.bpr import BPR
from pipeline.models.dualgnn import DualGNN
from pipeline.models.freedom import FREEDOM
from pipeline.models.grcn import GRCN
from pipeline.models.itemknn import ContentKNN, ItemKNN
from pipeline.models.lattice import LATTICE
from pipeline.models.lightgcn import LightGCN
from pipeline.models.mgcn import MGCN
from pipeline.models.mmgcn import MMGCN
from pipeline.models.slmrec import SLMRec
from pipeline.models.vbpr import VBPR

MODELS: dict[str, type[Recommender]] = {
    "itemknn": ItemKNN,
    "contentknn": ContentKNN,
    "bpr": BPR,
    "lightgcn": LightGCN,
    "vbpr": VBPR,
    "mmgcn": MMGCN,
    "grcn": GRCN,
    "dualgnn": DualGNN,
    "slmrec": SLMRec,
    "bm3": BM3,
    "lattice": LATTICE,
    "freedom": FREEDOM,
    "mgcn": MGCN,
    "alignrec": AlignRec,
}
