"""A branch: a dataset with another encoder, and its own folder from pre-training to benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import schemas
from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.features.sets import FeatureSets
from pipeline.features.write import cluster, write
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.items.texts import Texts
from pipeline.layout import Layout
from pipeline.pretrain.train import train_once
from pipeline.run import Run

OWN = ("pretrain", "encode", "graph", "probe", "benchmark")  # stages whose files a branch has of its own


@dataclass(frozen=True)
class Branch(Layout):
    """The paths of a dataset with an encoder of its own; all other stages' files are the dataset's."""

    name: str  # of the branch, a relative path below the study's folder
    seed: int = 0  # of its pre-training

    def folder(self, stage: str) -> Path:
        return super().folder("study") / self.name / stage if stage in OWN else super().folder(stage)

    @property
    def answers(self) -> Path:
        return self.folder("probe") / "answers.safetensors"


def prepared(run: Run, params: Parameters, branch: Branch, sets: Sequence[str], graphs: Sequence[str]) -> list[Path]:
    inner = run.within("pretrain", params, branch, branch.name)
    train_once(inner)
    inner = run.within("encode", params, branch, branch.name)
    ids = run.read(branch.item_ids, schemas.ITEM_IDS)
    texts = Texts(branch.items)
    made, on = FeatureSets(branch, params[Encode], params.encoders), cluster(inner, params[Encode])
    with inner.progress(total=len(ids) * len(sets), unit="item", what="encode") as bar:
        for name in sets:
            write(inner, made[name], on, ids, texts, bar.update)
    for name in graphs:
        searched(run.within("graph", params, branch, branch.name), name)
    files = branch.outputs("pretrain")
    files += [path for name in sets for path in io.shards(branch.features(name), "features")]
    return [*files, *(branch.edges(name) for name in graphs)]


def searched(run: Run, features: str) -> None:
    path, shards = run.layout.edges(features), io.shards(run.layout.features(features), "features")
    params = run.params[Graph]
    run.resume(path.parent, shards, params.model_dump(), modules=["pipeline.graph.neighbours"])
    if not path.is_file():
        vectors = io.matrix(io.read_features(run.layout.features(features))["vector"])
        run.write(neighbours.of_params(vectors, params), path, schemas.EDGES)
