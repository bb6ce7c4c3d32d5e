"""Joint or staged training of AlignRec and BEiT3 (docs/study.md): `python -m experiments.joint sample`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec.pipeline.benchmark.plan import Compared
from alignrec.pipeline.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.encoders.params import BEiT3
from alignrec.pipeline.evaluation.metrics import open_test
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, compared, opened, pretraining, record
from experiments.together import Encoder, Together

SET = "beit3-raw"  # raw CLS vectors, as in the article; gradients can reach them
STARTS = ("pre-trained", "untrained")  # networks; the first by MIM and MLM only, as joint training has no teachers
NOTE = (
    "BEiT3 of size small; pre-trained: by MIM and MLM, without teachers. Joint: AlignRec's losses train it too, at a "
    "multiple of AlignRec's learning rate; all items are encoded again after each epoch."
)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    rate: Annotated[list[float], typer.Option()] = [0.1, 0.01],  # noqa: B006
    seeds: int = 3,
    steps: int = 1056,
) -> None:
    """Train AlignRec on a frozen BEiT3 and jointly with it, from both starts, and record the change in recall."""
    given, layout, folder = opened(dataset, params, root, "joint")
    sets = given[BEiT3].model_copy(update={"sets": [SET]})
    settings = model_settings(given, RELEASED)
    settings = settings.model_copy(update={"patience": settings.epochs, "mode": "frozen"})
    branches = {}
    for start, number in zip(STARTS, (steps, 0), strict=True):
        own = given.having(pretraining(given, size="small", distill=0.0, steps=number), sets)
        branches[start] = branched(layout, folder / start, own, ["pretrain", "beit3", "graph"])
    arms = {f"{way}, {start}": (start, 0.0) for way, start in zip(("staged", "frozen"), STARTS, strict=True)}
    arms |= {f"joint, {start}, rate x {factor:g}": (start, factor) for start in STARTS for factor in rate}
    rules = protocol_of(given, dataset, inputs.read_inputs(layout, None).split)
    found: dict[Compared, np.ndarray] = {}
    for arm, (start, factor) in arms.items():
        for seed in range(seeds):
            data, model = inputs.read_inputs(branches[start], SET), AlignRec
            if factor:
                encoder = Encoder(branches[start])
                vectors = encoder.all()
                data = data._replace(features=vectors, edges=neighbours_by_params(vectors, given[Graph]))
                model = partial(Together, encoder=encoder, graph=given[Graph], rate=factor)  # type: ignore[assignment]
                model.needs = AlignRec.needs
            fitted = fit(model, *data, settings, seed_for("benchmark", dataset, RELEASED, seed))
            judged = open_test(fitted.user, fitted.item, data.split, rules, [20])
            found[Compared(RELEASED, arm, seed)] = judged.test.per_user["recall", 20]
    record(layout, "joint", compared(found, [*arms], f"{NOTE} {settings.epochs} epochs, {steps:,} steps."))


if __name__ == "__main__":
    typer.run(main)
