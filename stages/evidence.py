"""Stages whose results reports and releases include."""

from alignrec.stages.benchmark import BENCHMARK
from alignrec.stages.graph import GRAPH
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS
from alignrec.stages.pretrain import PRETRAIN
from alignrec.stages.probe import PROBE
from alignrec.stages.semantic_ids import SEMANTIC_IDS
from alignrec.stages.study import STUDY
from alignrec.stages.train import TRAIN

EVIDENCE = (INTERACTIONS, ITEMS, IMAGES, PRETRAIN, GRAPH, SEMANTIC_IDS, TRAIN, PROBE, BENCHMARK, STUDY)
