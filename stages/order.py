"""The stages in order. A new one is a file here, its package in pipeline/, and a line in this list."""

from stages.beit3 import BEIT3
from stages.benchmark import BENCHMARK
from stages.combine import COMBINE
from stages.download import DOWNLOAD
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS
from stages.pretrain import PRETRAIN
from stages.probe import PROBE
from stages.publish import PUBLISH
from stages.report import REPORT
from stages.semantic_ids import SEMANTIC_IDS
from stages.study import STUDY
from stages.train import TRAIN

IN_ORDER = [
    DOWNLOAD,
    INTERACTIONS,
    ITEMS,
    IMAGES,
    ENCODE,
    PRETRAIN,
    BEIT3,
    COMBINE,
    GRAPH,
    SEMANTIC_IDS,
    TRAIN,
    PROBE,
    BENCHMARK,
    STUDY,
    REPORT,
    PUBLISH,
]
STAGES = {stage.name: stage for stage in IN_ORDER}  # name -> stage, in order
