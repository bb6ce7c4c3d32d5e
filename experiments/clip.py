"""CLIP and BEiT3 trained on a dataset, in the paper's intermediate protocols.

Command: `python -m experiments.clip sample`.
"""

from pathlib import Path

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.benchmark.cell import DatasetData
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.probe.judge import Processing, answer_sets, summarise_answers
from alignrec.pipeline.probe.params import ProbeParams
from alignrec.pipeline.probe.questions import Questions
from alignrec.pipeline.probe.registry import PROBES, Data
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from experiments.contrast import WIDTH, trained_clip
from experiments.shared import branched, compared, opened, planned, pretraining, recalls, record

SETS = {  # feature set of the branch -> its name here
    "beit3": "BEiT3",
    "beit3-image-masked": "BEiT3, images masked",
    "beit3-text-masked": "BEiT3, texts masked",
    "beit3-untrained": "BEiT3, untrained",
}
NOTE = (
    "Both of width 128 and 3 layers, trained for {steps:,} steps of 16 items: BEiT3 by MIM and MLM "
    "only, with MiniLM's words; CLIP by contrast. Features are raw CLS, and image and text vectors "
    "concatenated."
)


def probed(layout: Layout, sets: dict[str, np.ndarray]) -> Table:
    """Return a table of zero-shot and Item-CF hits, raw and processed."""
    data = Data(
        io.read_table(layout.interactions, schemas.INTERACTIONS), len(next(iter(sets.values())))
    )
    asked = {name: PROBES[name].ask(data) for name in ("zero_shot", "item_cf")}
    tasks = {name: task for name, task in asked.items() if isinstance(task, Questions)}
    processing = Processing(data, ProbeParams().width)
    raw, processed = answer_sets(tasks, sets.items(), [CUTOFF], processing=processing)
    summaries = [summarise_answers(tasks, answers, [CUTOFF]) for answers in (raw, processed)]

    rows = []
    for name in sets:
        cells = []
        for probe in tasks:
            figure = PROBES[probe].figure
            values = [f"{summary[probe][name][figure]:.3f}" for summary in summaries]
            cells.append(", ".join(values))
        rows.append([name, *cells])
    head = ("features", *(f"{PROBES[probe].name} {PROBES[probe].figure}" for probe in tasks))
    return Table("", "Raw, then processed.", head, rows)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    steps: int = 1056,
    seeds: int = 3,
    features: list[str] = [],  # noqa: B006
) -> None:
    """Train both and record probes and AlignRec's recall, also of FEATURES, such as those of a
    pre-trained CLIP.
    """
    given, layout, folder = opened(dataset, params, root, "clip")
    section = given[BEiT3Sets].model_copy(update={"whiten": False, "sets": [*SETS]})
    pretrain = pretraining(given, size="small", distill=0.0, steps=steps)
    parameters = given.with_sections(pretrain, section)
    branch = branched(layout, folder, parameters, ["pretrain", "beit3"])
    sets = {name: read_vectors(branch, key) for key, name in SETS.items()}
    clip = trained_clip(layout, steps)
    is_image = np.repeat([True, False], WIDTH)
    sets |= {
        "CLIP": clip,
        "CLIP, images masked": clip * ~is_image,
        "CLIP, texts masked": clip * is_image,
        "CLIP, untrained": trained_clip(layout, 0),
    }
    sets |= {name: read_vectors(layout, name) for name in features}

    data = {}
    for name, vectors in sets.items():
        path = folder / f"{name}.npy"
        io.write_npy(path, vectors)
        data[name] = DatasetData(layout, path, (), parameters[Graph])
    cells = planned(parameters, data, [RELEASED], seeds)
    values = recalls(cells, folder, parameters[Benchmark].workers)

    whole = {name: vectors for name, vectors in sets.items() if not name.endswith("masked")}
    note = NOTE.format(steps=steps)
    record(layout, "clip", probed(layout, whole), compared(values, [*data], note))


def read_vectors(layout: Layout, features: str) -> np.ndarray:
    return io.matrix(io.read_features(layout.features(features))["vector"])


if __name__ == "__main__":
    typer.run(main)
