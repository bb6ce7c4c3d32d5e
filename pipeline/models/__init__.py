"""The recommenders, one file each; a new one is a file and an entry here."""

from pipeline.models.alignrec import AlignRec
from pipeline.models.base import Recommender
from pipeline.models.bpr import BPR
from pipeline.models.lightgcn import LightGCN
from pipeline.models.vbpr import VBPR

MODELS: dict[str, type[Recommender]] = {"bpr": BPR, "lightgcn": LightGCN, "vbpr": VBPR, "alignrec": AlignRec}
