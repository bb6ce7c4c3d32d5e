"""Stage train: the released recommender and its embeddings."""

from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.graph import GRAPH
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.models.training.released import train_released  # loads torch

    params = run.params[TrainSettings]
    # first, as it may reject a key: later steps delete unfinished work
    settings = params.resolved()
    files = inputs.input_files(run.layout, params.features)
    exact_up_to = run.params[Graph].exact_up_to
    run.resume(run.folder, files, params.facts(), exact_up_to)
    if not run.finished():
        train_released(run, params.features, settings, exact_up_to)


TRAIN = Stage(
    "train",
    does="AlignRec on one feature set -> user and item embeddings",
    writes="`model.safetensors`, `history.json`, `user_embeddings.parquet`, "
    "`item_embeddings.parquet`, a FAISS index",
    reads=(INTERACTIONS, *FEATURE_SET_STAGES, GRAPH),
    sections=("graph.exact_up_to", *FEATURE_SETS),
    params=TrainSettings,
    main=main,
    resumes=True,
)
