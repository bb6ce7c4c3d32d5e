"""What a modality adds, as a share of the truth, with intervals over cases and seeds
(docs/study.md).

Command: `python -m experiments.added sample`. N cases, D draws, S seeds, R resamples.
"""

from pathlib import Path

import numpy as np
import typer

from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.evaluation.probe.judge import Answers, answer_sets, build_tasks
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.evaluation.statistics import RESAMPLES, mean_over_draws, resample_means
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES, variant
from experiments.ceilings import PLANTED, planted_sets
from experiments.shared import branched, opened, pretraining, read_probe_data, read_vectors, record

SET = "beit3"
NOTE = (
    "What a modality adds to {set}, as a share of what the planted one adds; raw, headline "
    "figures. {seeds} networks, each pre-trained with another seed; 95 % percentile intervals of a "
    "bootstrap over cases (users or items), draws of cold items, and networks."
)


def encode_with_seed(params: Parameters, layout: Layout, folder: Path, seed: int) -> Layout:
    """Pre-train with a seed and encode with and without each modality."""
    names = [SET, *(variant(SET, modality) for modality in MODALITIES)]
    sets = params[BEiT3Sets].model_copy(update={"sets": names})
    changed = params.with_sections(pretraining(params, seed=seed), sets)
    return branched(layout, folder / str(seed), changed, ["pretrain", "beit3"])


def answer_all(layout: Layout, branches: list[Layout]) -> Answers:
    """Return probe -> set -> figures of cases, [N] or [N, D]; sets of seed 1 are "1 beit3"."""
    sets = {}
    planted = planted_sets(layout)
    for modality in ("", *MODALITIES):
        sets[f"planted {modality}"] = planted[variant(PLANTED, modality) if modality else PLANTED]
        for number, branch in enumerate(branches):
            name = variant(SET, modality) if modality else SET
            sets[f"{number} {modality}"] = read_vectors(branch, name)

    answers, _ = answer_sets(build_tasks(read_probe_data(layout)), sets.items(), [CUTOFF])
    figures: Answers = {}
    for probe, by_set in answers.items():
        is_hits = not PROBES[probe].drawn and next(iter(by_set.values()), np.zeros(0)).ndim == 2
        figures[probe] = {name: x[:, 0] if is_hits else x for name, x in by_set.items()}
    return figures


def share_added(
    figures: dict[str, np.ndarray], modality: str, seeds: int, seed: int
) -> tuple[float, float, float] | None:
    """Return what a modality adds, as a share of the planted one, and its 95 % interval.

    None if the planted one adds nothing; resamples in which it does not are left out.
    """
    names = [*map(str, range(seeds)), "planted"]
    columns = [figures[f"{name} "] - figures[f"{name} {modality}"] for name in names]
    gains = np.stack(columns, axis=-1).astype(np.float64)  # [N, S + 1] or [N, D, S + 1]
    means = mean_over_draws(gains)
    if means[-1] <= 0:
        return None
    resampled = resample_means(gains, RESAMPLES, seed)  # [R, S + 1]

    rng = np.random.default_rng([seed, 2])
    chosen = rng.integers(seeds, size=(RESAMPLES, seeds))
    ours = np.take_along_axis(resampled, chosen, axis=1).mean(1)
    planted = resampled[:, -1]
    low, high = np.quantile(ours[planted > 0] / planted[planted > 0], [0.025, 0.975])
    return float(means[:-1].mean() / means[-1]), float(low), float(high)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    seeds: int = 3,
) -> None:
    """Pre-train with several seeds and record what images and texts add in each probe."""
    given, layout, folder = opened(dataset, params, root, "added")
    branches = []
    for number in range(seeds):
        branches.append(encode_with_seed(given, layout, folder, number))
        print(f"network {number + 1} of {seeds}", flush=True)

    rows = []
    for probe, figures in answer_all(layout, branches).items():
        for modality in MODALITIES if figures else ():
            seed = seed_for("added", dataset, probe, modality)
            added = share_added(figures, modality, seeds, seed)
            cells = ["", "the planted one adds nothing"]
            if added is not None:
                share, low, high = added
                cells = [f"{share:.0%}", f"{low:.0%} .. {high:.0%}"]
            rows.append([modality, PROBES[probe].name, *cells])
    rows.sort(key=lambda row: MODALITIES.index(row[0]))
    head = ("modality", "probe", "share", "95 % interval")
    record(layout, "added", Table("", NOTE.format(set=SET, seeds=seeds), head, rows))


if __name__ == "__main__":
    typer.run(main)
