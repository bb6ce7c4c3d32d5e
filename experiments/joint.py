"""Joint or staged training of AlignRec and BEiT3 (docs/study.md).

Command: `python -m experiments.joint sample`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.benchmark.cell import CellLabel
from alignrec.pipeline.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.evaluation.metrics import open_test
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, compared, opened, pretraining, record
from experiments.together import Encoder, bind_encoder

SET = "beit3-raw"  # raw CLS vectors, as in the article; gradients can reach them
STAGES = ("pretrain", "beit3", "graph")
NOTE = (
    "BEiT3 of size small; pre-trained: by MIM and MLM, without teachers. Joint: AlignRec's losses "
    "train it too, at a multiple of AlignRec's learning rate; all items are encoded again after "
    "each epoch."
)


class Arm(NamedTuple):
    """An encoder's initial weights and how it is trained with AlignRec."""

    start: str  # pre-trained or untrained
    rate: float | None  # its learning rate, as a multiple of AlignRec's; None: frozen


def list_arms(rates: Sequence[float]) -> dict[str, Arm]:
    """Return the arms by name; the others are compared with the first."""
    arms = {
        "staged, pre-trained": Arm("pre-trained", None),
        "frozen, untrained": Arm("untrained", None),
    }
    for start in ("pre-trained", "untrained"):
        for rate in rates:
            arms[f"joint, {start}, rate x {rate:g}"] = Arm(start, rate)
    return arms


def pretrain_starts(
    params: Parameters,
    layout: Layout,
    folder: Path,
    steps: int,
) -> dict[str, Layout]:
    """Pre-train one encoder and initialise another, both without teachers."""
    sets = params[BEiT3Sets].model_copy(update={"sets": [SET]})
    branches = {}
    for start, number in {"pre-trained": steps, "untrained": 0}.items():
        section = pretraining(params, size="small", distill=0.0, steps=number)
        branches[start] = branched(
            layout, folder / start, params.with_sections(section, sets), STAGES
        )
    return branches


def train_arm(arm: Arm, branch: Layout, graph: Graph, settings: Train, seed: int) -> Fit:
    """Train AlignRec on the branch's features or, jointly, on those of the branch's encoder."""
    data = inputs.read_inputs(branch, SET)
    if arm.rate is None:
        return fit(AlignRec, *data, settings, seed)

    encoder = Encoder(branch)
    vectors = encoder.encode_all()
    edges = neighbours_by_params(vectors, graph)
    model = bind_encoder(encoder, graph, arm.rate)
    return fit(model, data.split, vectors, edges, settings, seed)


def measure_recalls(
    arms: Mapping[str, Arm],
    branches: Mapping[str, Layout],
    params: Parameters,
    settings: Train,
    seeds: int,
) -> dict[CellLabel, np.ndarray]:
    """Train each arm with each seed and return test recall per user, float64 [N]."""
    layout = next(iter(branches.values()))
    split = inputs.read_inputs(layout, None).split
    rules = protocol_of(params, layout.dataset, split)

    recalls = {}
    for name, arm in arms.items():
        for number in range(seeds):
            seed = seed_for("benchmark", layout.dataset, RELEASED, number)
            fitted = train_arm(arm, branches[arm.start], params[Graph], settings, seed)
            result = open_test(fitted.user, fitted.item, split, rules, [CUTOFF])
            recalls[CellLabel(RELEASED, name, number)] = result.test.per_user["recall", CUTOFF]
    return recalls


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    rate: Annotated[list[float], typer.Option(min=0)] = [0.1, 0.01],  # noqa: B006
    seeds: int = 3,
    steps: int = 1056,
) -> None:
    """Train AlignRec on a frozen BEiT3 and jointly with it, and record the change in recall."""
    given, layout, folder = opened(dataset, params, root, "joint")
    settings = model_settings(given, RELEASED)
    settings = settings.model_copy(update={"patience": settings.epochs, "mode": "frozen"})

    branches = pretrain_starts(given, layout, folder, steps)
    arms = list_arms(rate)
    recalls = measure_recalls(arms, branches, given, settings, seeds)

    note = f"{NOTE} {settings.epochs} epochs, {steps:,} steps."
    record(layout, "joint", compared(recalls, [*arms], note))


if __name__ == "__main__":
    typer.run(main)
