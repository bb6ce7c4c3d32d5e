"""Joint or staged training of AlignRec and BEiT3 on equal terms (docs/study.md).

Command: `python -m experiments.joint sample`.
"""

import ctypes
import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import typer

from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel
from alignrec.pipeline.evaluation.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.evaluation.held_out import open_test
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.report.table import Table, Value, describe_seeds, format_figure
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.process import watch_memory
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.masked_modelling import MaskedModelling, read_masked_task
from experiments.shared import branched, compared, opened, pretraining, record
from experiments.together import Encoder, bind_encoder

SET = "beit3-raw"  # raw CLS vectors, as in the article; gradients can reach them
STAGES = ("pretrain", "beit3", "graph")
NOTE = (
    "BEiT3 of size small from equal random weights, without teachers. Staged: {steps:,} steps of "
    "MIM and MLM, then {steps:,} of AlignRec ({epochs} epochs) on frozen CLS. Joint: {steps:,} "
    "steps of the sum of these losses on the same batches and masks, with the same optimisers; all "
    "items are encoded again after each epoch. Each seed pre-trains."
)
COST_NOTE = (
    "Per seed, from texts and images to the trained recommender, on CPUs; memory is the peak that "
    "an arm added to what the process had. {seeds}."
)


class Arm(NamedTuple):
    """How an encoder is trained."""

    steps: bool  # whether MIM and MLM come first, in a stage of their own
    joint: bool  # whether AlignRec's losses reach it
    masked: bool = False  # whether MIM and MLM are among the losses of joint training


ARMS = {  # the others are compared with the first
    "staged": Arm(steps=True, joint=False),
    "joint": Arm(steps=False, joint=True, masked=True),
    "joint, without MIM and MLM": Arm(steps=False, joint=True),
    "frozen, untrained": Arm(steps=False, joint=False),
}


@dataclass
class Cost:
    """What a block took."""

    seconds: float = 0.0
    cpu: float = 0.0  # seconds of all cores, and of child processes
    mib: float = 0.0  # peak above the start

    def followed_by(self, other: "Cost") -> "Cost":
        peak = max(self.mib, other.mib)
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu, peak)


@contextmanager
def measure_cost() -> Iterator[Cost]:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)  # an earlier block's memory would hide what this one needs
    with watch_memory() as before:
        pass
    cost = Cost()
    start = time.perf_counter()
    cpu = sum(os.times()[:4])
    with watch_memory() as during:
        yield cost
    cost.seconds = time.perf_counter() - start
    cost.cpu = sum(os.times()[:4]) - cpu
    cost.mib = max(0, (during.mib or 0) - (before.mib or 0))


def equal_steps(settings: Train, n_pairs: int, steps: int) -> tuple[Train, int]:
    """Return settings with a batch size that gives about `steps` steps, and how many they are."""
    batch_size = -(-n_pairs * settings.epochs // max(1, steps))
    changed = {"batch_size": batch_size, "patience": settings.epochs, "mode": "frozen"}
    return settings.model_copy(update=changed), settings.epochs * -(-n_pairs // batch_size)


def train_arm(
    arm: Arm, branch: Layout, params: Parameters, section: Pretrain, settings: Train, seed: int
) -> Fit:
    """Train AlignRec on the branch's features or, jointly, on those of the branch's encoder."""
    data = inputs.read_inputs(branch, SET)
    if not arm.joint:
        return fit(AlignRec, *data, settings, seed)

    encoder = Encoder(branch)
    vectors = encoder.encode_all()
    edges = neighbours_by_params(vectors, params[Graph])
    masked = MaskedModelling(encoder.network, read_masked_task(branch, section), arm.masked)
    model = bind_encoder(encoder, params[Graph], masked)
    return fit(model, data.split, vectors, edges, settings, seed)


def cost_table(costs: Mapping[str, list[Cost]], seeds: int) -> Table:
    rows: list[list[Value]] = []
    for name, by_seed in costs.items():
        seconds = mean_and_sd([cost.seconds for cost in by_seed])
        cpu = mean_and_sd([cost.cpu for cost in by_seed])
        mib = mean_and_sd([cost.mib for cost in by_seed])
        rows.append([name, *(format_figure(figure, ",.0f") for figure in (seconds, cpu, mib))])
    head = ("cost", "seconds", "CPU seconds", "MiB")
    return Table.of("", COST_NOTE.format(seeds=describe_seeds([seeds]).capitalize()), head, rows)


def prepare_starts(
    params: Parameters, layout: Layout, folder: Path, section: Pretrain
) -> dict[bool, tuple[Layout, Cost]]:
    """Pre-train an encoder in a stage of its own (True), and initialise its equal (False)."""
    sets = params[BEiT3Sets].model_copy(update={"sets": [SET]})
    starts = {}
    for is_trained, name in ((True, "pre-trained"), (False, "untrained")):
        steps = section.steps if is_trained else 0
        sections = section.model_copy(update={"steps": steps}), sets
        root = folder / f"{name}-{section.seed}"
        with measure_cost() as cost:
            branch = branched(layout, root, params.with_sections(*sections), STAGES)
        starts[is_trained] = branch, cost
    return starts


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    seeds: int = 3,
    steps: int = 1056,
) -> None:
    """Train AlignRec on a pre-trained BEiT3 and jointly with it, and record recall and cost."""
    given, layout, folder = opened(dataset, params, root, "joint")
    split = inputs.read_inputs(layout, None).split
    rules = protocol_of(given, dataset, split)
    settings, taken = equal_steps(model_settings(given, RELEASED), len(split.train), steps)

    recalls = {}
    costs = {name: list[Cost]() for name in ARMS}
    for number in range(seeds):
        section = pretraining(given, size="small", distill=0.0, steps=taken, seed=number)
        starts = prepare_starts(given, layout, folder, section)
        for name, arm in ARMS.items():
            branch, before = starts[arm.steps]
            seed = seed_for("benchmark", dataset, RELEASED, number)
            with measure_cost() as cost:
                fitted = train_arm(arm, branch, given, section, settings, seed)
            costs[name].append(before.followed_by(cost))
            result = open_test(fitted.user, fitted.item, split, rules, [CUTOFF])
            recalls[CellLabel(RELEASED, name, number)] = result.test.per_user["recall", CUTOFF]
            print(f"{name}, seed {number}: {costs[name][-1].seconds:.0f} s", flush=True)

    note = NOTE.format(steps=taken, epochs=settings.epochs)
    tables = (compared(recalls, [*ARMS], note), cost_table(costs, seeds))
    record(layout, "joint", *tables, reads_network=False)


if __name__ == "__main__":
    typer.run(main)
