"""params.yaml as closed, typed, frozen classes: one a stage.

An unknown key, a wrong type or a value out of range is one line that names section, key and the nearest valid key.
The sections: data.py (download, interactions, items, images); features.py (pretrain, encode, graph);
train.py (what every recommender's training shares); judging.py (probe, benchmark, sweep); study.py (study);
semantic_ids.py (semantic_ids); release.py (report, publish).

Settings of one recommender, encoder or source are beside it: pipeline/models/, pipeline/encode/, pipeline/sources/.
pipeline/params.py puts all of it together.
"""

from pipeline.config.base import Section
from pipeline.config.data import Download, Images, Interactions, Items
from pipeline.config.features import Encode, Graph, Pretrain
from pipeline.config.judging import Benchmark, Probe, Range, Sweep
from pipeline.config.release import Publish, Report
from pipeline.config.semantic_ids import SemanticIds
from pipeline.config.study import Mask, Study
from pipeline.config.train import Regularised, Train

__all__ = [
    "Benchmark",
    "Download",
    "Encode",
    "Graph",
    "Images",
    "Interactions",
    "Items",
    "Mask",
    "Pretrain",
    "Probe",
    "Publish",
    "Range",
    "Regularised",
    "Report",
    "Section",
    "SemanticIds",
    "Study",
    "Sweep",
    "Train",
]
