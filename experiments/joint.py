"""Joint or staged training of AlignRec and BEiT3 (docs/study.md): `python -m experiments.joint sample`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec.pipeline.benchmark.plan import Compared
from alignrec.pipeline.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.encode.params import BEiT3
from alignrec.pipeline.evaluation.metrics import open_test
from alignrec.pipeline.graph import neighbours
from alignrec.pipeline.graph.params import Graph
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.pretrain.params import Pretrain
from alignrec.pipeline.train import inputs
from alignrec.pipeline.train.loop import fit
from experiments.shared import branched, compared, opened
from experiments.together import Encoder, Together

SET = "beit3-raw"  # raw CLS vectors, as in the article; gradients can reach them


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    rate: Annotated[list[float], typer.Option()] = [1.0, 0.1, 0.01],  # noqa: B006
    seeds: int = 3,
    steps: int = 1056,
) -> None:
    """Train staged, without pre-training and jointly (`rate`: relative learning rate of the encoder), and compare."""
    given, layout, folder = opened(dataset, params, root, "joint")
    sets, settings = (
        given[BEiT3].model_copy(update={"sets": [SET]}),
        model_settings(given, RELEASED),
    )
    settings = settings.model_copy(update={"patience": settings.epochs})
    branches = {}
    arms: dict[str, dict[str, float]] = {"staged": {"steps": steps}, "start": {"steps": 0, "distill": 0.0}}
    for name, keys in arms.items():
        own = given.having(given[Pretrain].model_copy(update={"size": "small", **keys}), sets)
        branches[name] = branched(layout, folder / name, own, ["pretrain", "beit3", "graph"])
    rules = protocol_of(given, dataset, inputs.read_inputs(layout, None).split)
    found: dict[Compared, np.ndarray] = {}
    for seed in range(seeds):
        drawn = seed_for("benchmark", dataset, RELEASED, seed)
        for arm, of in {"staged": 0.0, "start": 0.0, **{f"joint, rate x {r:g}": r for r in rate}}.items():
            data, model, own_settings = (
                inputs.read_inputs(branches.get(arm, branches["start"]), SET),
                AlignRec,
                settings,
            )
            if of:
                encoder, own_settings = Encoder(branches["start"]), settings.model_copy(update={"mode": "frozen"})
                vectors = encoder.all()
                data = data._replace(features=vectors, edges=neighbours.neighbours_by_params(vectors, given[Graph]))
                model = partial(Together, encoder=encoder, graph=given[Graph], rate=of)  # type: ignore[assignment]
                model.needs = AlignRec.needs
            fitted = fit(model, *data, own_settings, drawn)
            judged = open_test(fitted.user, fitted.item, data.split, rules, [20])
            found[Compared(RELEASED, arm, seed)] = judged.test.per_user["recall", 20]
    print(*compared(found, list(dict.fromkeys(one.features for one in found))), sep="\n")


if __name__ == "__main__":
    typer.run(main)
