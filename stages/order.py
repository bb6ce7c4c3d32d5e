"""All stages in order.

To add one, write its file here and a package in pipeline/, and list it below.
"""

from alignrec.stages.beit3 import BEIT3
from alignrec.stages.benchmark import BENCHMARK
from alignrec.stages.combine import COMBINE
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.encode import ENCODE
from alignrec.stages.graph import GRAPH
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS
from alignrec.stages.pretrain import PRETRAIN
from alignrec.stages.probe import PROBE
from alignrec.stages.publish import PUBLISH
from alignrec.stages.report import REPORT
from alignrec.stages.semantic_ids import SEMANTIC_IDS
from alignrec.stages.study import STUDY
from alignrec.stages.train import TRAIN

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
