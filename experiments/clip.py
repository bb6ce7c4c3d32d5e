"""CLIP and BEiT3 trained on a dataset from equal starts, in the paper's intermediate protocols.

Commands: `python -m experiments.clip sample`; with a pre-trained CLIP, here the smallest one that
open_clip publishes (62 million parameters), whose weights it downloads:
`python -m experiments.clip sample --features vitamin-s=jienengchen/ViTamin-S`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, DatasetData
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.evidence import mean_and_sd, seeds_of
from alignrec.pipeline.evaluation.probe.judge import Processing
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.report.table import Table, Value, describe_seeds, format_figure
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from experiments import shared
from experiments.contrast import WIDTH, trained_clip
from experiments.shared import (
    branched,
    compared,
    opened,
    planned,
    pretraining,
    read_vectors,
    recalls,
    record,
)

SETS = {  # feature set of the branch -> its name here
    "beit3": "BEiT3",
    "beit3-image-masked": "BEiT3, images masked",
    "beit3-text-masked": "BEiT3, texts masked",
    "beit3-untrained": "BEiT3, untrained",
}
PROBES = ("zero_shot", "item_cf")
POWER = 2.8  # standard errors: a true difference of this size is found in 80 % of tests at .05
NOTE = (
    "Both of width 128 and 3 layers, from random weights but for MiniLM's words, trained for "
    "{steps:,} steps of 16 items: BEiT3 by MIM and MLM only, CLIP by contrast. Features are raw "
    "CLS, and image and text vectors concatenated. Each seed trains both encoders."
)
POWER_NOTE = (
    "BEiT3 less CLIP on the same users or items, means over {seeds}: its standard error, and the "
    "smallest true difference that a test at .05 would find in 80 % of cases (2.8 errors), before "
    "Holm's correction; share: of BEiT3's figure."
)
Probed = dict[str, dict[str, np.ndarray]]  # probe -> set -> hits of each case


def encode_sets(
    given: Parameters, layout: Layout, folder: Path, steps: int, seed: int
) -> dict[str, np.ndarray]:
    """Train BEiT3 and CLIP and return their vectors, name -> float32 [I, F]."""
    section = given[BEiT3Sets].model_copy(update={"whiten": False, "sets": [*SETS]})
    pretrain = pretraining(given, size="small", distill=0.0, steps=steps, seed=seed)
    encode = given[Encode].model_copy(update={"seed": seed})  # draws the untrained network
    parameters = given.with_sections(pretrain, section, encode)
    branch = branched(layout, folder / str(seed), parameters, ["pretrain", "beit3"])
    sets = {name: read_vectors(branch, key) for key, name in SETS.items()}

    clip = trained_clip(layout, steps, seed)
    is_image = np.repeat([True, False], WIDTH)
    return sets | {
        "CLIP": clip,
        "CLIP, images masked": clip * ~is_image,
        "CLIP, texts masked": clip * is_image,
        "CLIP, untrained": trained_clip(layout, 0, seed),
    }


def read_further(
    given: Parameters, layout: Layout, folder: Path, features: list[str]
) -> dict[str, np.ndarray]:
    """Return the vectors of sets of the dataset, or of models of open_clip: NAME=MODEL."""
    vectors = {}
    for name, _, model in (text.partition("=") for text in features):
        source = layout
        if model:
            encoders = given.encoders | {name: {"kind": "open_clip", "model": model}}
            encode = given[Encode].model_copy(update={"encoders": [name]})
            changed = given.model_copy(update={"encoders": encoders}).with_sections(encode)
            source = branched(layout, folder / name, changed, ["encode"])
        vectors[name] = read_vectors(source, name)
    return vectors


def probe_table(by_seed: list[tuple[Probed, Probed]]) -> Table:
    """Return a table of zero-shot and Item-CF hits, raw and processed."""
    rows: list[list[Value]] = []
    titles = [*by_seed[0][0]]
    for name in by_seed[0][0][titles[0]]:
        cells = []
        for title in titles:
            figures = []
            for form in range(2):
                means = [float(seed[form][title][name].mean()) for seed in by_seed]
                figures.append(format_figure(mean_and_sd(means), ".3f"))
            cells.append(", ".join(figures))
        rows.append([name, *cells])
    note = f"Raw, then processed; {describe_seeds([len(by_seed)])}."
    return Table.of("", note, ("features", *titles), rows)


def power_table(cases: Mapping[str, tuple[np.ndarray, np.ndarray]], seeds: int) -> Table:
    """Return what differences could be found; cases are figures of BEiT3 and CLIP, [N] each."""
    rows: list[list[Value]] = []
    for name, (ours, theirs) in cases.items():
        difference = ours - theirs
        error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        least = POWER * error
        share = least / ours.mean() if ours.mean() else np.nan
        figures = [f"{difference.mean():+.4f}", f"{error:.4f}", f"{least:.4f}", f"{share:.0%}"]
        rows.append([name, f"{len(difference):,}", *figures])
    head = ("measure", "cases", "difference", "error", "can be found", "share")
    return Table.of("", POWER_NOTE.format(seeds=seeds_of([seeds])), head, rows)


def probe_sets(layout: Layout, sets: Mapping[str, np.ndarray]) -> tuple[Probed, Probed]:
    """Return hits of sets without masks, raw and processed."""
    whole = {name: vectors for name, vectors in sets.items() if not name.endswith("masked")}
    processing = Processing(shared.read_probe_data(layout), ProbeParams().width)
    raw = shared.answer_probes(layout, whole, PROBES)
    return raw, shared.answer_probes(layout, whole, PROBES, processing)


def train_on(
    sets: Mapping[str, np.ndarray], given: Parameters, layout: Layout, folder: Path, seed: int
) -> dict[CellLabel, np.ndarray]:
    """Train AlignRec on each set with one seed and return test recall per user, float64 [N]."""
    data = {}
    for name, vectors in sets.items():
        path = folder / str(seed) / f"{name}.npy"
        io.write_npy(path, vectors)
        data[name] = DatasetData(layout, path, (), given[Graph])
    cells = planned(given, data, [RELEASED], seed + 1)
    of_seed = {label: cell for label, cell in cells.items() if label.seed == seed}
    return recalls(of_seed, folder, given[Benchmark].workers)


def pair_cases(
    probed: Sequence[tuple[Probed, Probed]], values: Mapping[CellLabel, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return measure -> figures of BEiT3 and CLIP by case, means over seeds, float64 [N]."""
    by_measure: dict[str, list[np.ndarray]] = {}
    for name in ("BEiT3", "CLIP"):
        for title in probed[0][0]:
            by_seed = [raw[title][name] for raw, _ in probed]
            by_measure.setdefault(f"{title}, raw", []).append(np.mean(by_seed, axis=0))
        of_users = [recall for label, recall in values.items() if label.features == name]
        measure = f"AlignRec recall@{CUTOFF}"
        by_measure.setdefault(measure, []).append(np.mean(of_users, axis=0))
    return {measure: (ours, theirs) for measure, (ours, theirs) in by_measure.items()}


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    steps: int = 1056,
    seeds: int = 3,
    features: Annotated[list[str], typer.Option()] = [],  # noqa: B006
) -> None:
    """Train both and record probes, AlignRec's recall, and the differences that could be found;
    also of FEATURES, such as those of a pre-trained CLIP.
    """
    given, layout, folder = opened(dataset, params, root, "clip")
    further = read_further(given, layout, folder, features)

    probed = list[tuple[Probed, Probed]]()
    values = dict[CellLabel, np.ndarray]()
    names: list[str] = []
    for number in range(seeds):
        sets = encode_sets(given, layout, folder, steps, number) | further
        names = [*sets]
        print(f"seed {number}: {len(sets)} feature sets", flush=True)
        probed.append(probe_sets(layout, sets))
        values |= train_on(sets, given, layout, folder, number)

    recall = compared(values, names, NOTE.format(steps=steps))
    power = power_table(pair_cases(probed, values), seeds)
    record(layout, "clip", probe_table(probed), recall, power, reads_network=False)


if __name__ == "__main__":
    typer.run(main)
