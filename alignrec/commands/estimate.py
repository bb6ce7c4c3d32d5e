"""Estimate hours, memory and disk of the stages that take more than seconds.

A stage does units of work, each of which takes as long as so many operations of a matrix product.
UNIT_COSTS were measured on Baby, on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from alignrec.commands.size import Size
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, BEiT3Config, MiniConfig
from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import kind_of
from alignrec.pipeline.evaluation.benchmark.params import Benchmark, Study
from alignrec.pipeline.evaluation.benchmark.plan import list_labels
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.questions import sample_size
from alignrec.pipeline.features.names import DeclaredSets, maskable_sets
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.base import Untrained
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.params import Parameters

UNIT_COSTS = {
    "pretrain": 7.0,  # an operation of a forward pass, in training
    "encode": 2.0,  # an operation of a network
    "beit3": 2.0,  # an operation of the network
    "graph": 3.0,  # a product of two numbers of items' vectors
    "train": 750.0,  # an interaction in a step, by number of its vectors
    "probe": 17_000.0,  # an item that is ranked for a user
    "benchmark": 750.0,  # as of `train`
    "study": 1_100.0,  # as of `train`
}
START_SECONDS = 5.0  # of a process

# operations of an image and of a piece of text, by kind of encoder
OPERATIONS = {
    "tfidf": (0.0, 0.0),
    "descriptors": (0.0, 0.0),
    "cnn": (8e8, 0.0),
    "minilm": (0.0, 2.1e7),
    "minilm-cnn": (8e8, 2.1e7),
}
BASE_OPERATIONS = (3.3e10, 1.7e8)  # of towers of 86 million parameters
WIDTH = 1664  # of a feature set

# of a training: its best epoch comes the sooner, the higher the learning rate is
TYPICAL_BEST_EPOCH = 40
BEST_EPOCH_TIMES_RATE = 0.06
# units of work, as of `train`
STEP = 3.3e6
ITEM = 13.0  # in a step, by number of its vector
RANKED_ITEM = 7.0  # for a user
CUBED_ITEMS = 0.004  # of a closed form

FLOAT_BYTES = 4
LOG = 10  # numbers of an interaction
TORCH_BYTES = 2e9  # memory of a stage with MiniLM and the CNN
PROCESS_BYTES = 5e8
RUN_BYTES = 200  # of a user, in a run of the benchmark


class Estimate(NamedTuple):
    """Estimated cost of a stage."""

    seconds: float
    memory: float = 0.0  # peak, bytes; 0: less than other stages need
    disk: float = 0.0  # bytes of its outputs
    basis: str = ""  # the most expensive part


@dataclass(frozen=True)
class Workload:
    """A dataset, its parameters and the speed of a machine."""

    params: Parameters
    dataset: str
    size: Size
    rate: float  # of a float32 matrix product, FLOP/s

    @property
    def sets(self) -> list[str]:
        return DeclaredSets(self.params, self.dataset).names()

    @property
    def settings(self) -> Train:
        """Settings of the released recommender."""
        return self.params[TrainSettings].resolved()

    @property
    def shape(self) -> BEiT3Config | MiniConfig:
        return BEIT3_CONFIGS.get(self.params[Pretrain].size) or MiniConfig()

    @property
    def training_bytes(self) -> float:
        """Memory of a training: moments of embeddings and features, and the log."""
        size = self.size
        numbers = 12 * self.settings.dim * (size.users + size.items) + 3 * WIDTH * size.items
        return PROCESS_BYTES + FLOAT_BYTES * (numbers + LOG * size.interactions)

    def seconds(self, stage: str, units: float) -> float:
        return START_SECONDS + UNIT_COSTS[stage] * units / self.rate

    def beit3_operations(self) -> float:
        """Return the operations of BEiT3's forward pass over an item."""
        shape = self.shape
        patches = getattr(shape, "patches", 1)
        pieces = min(self.size.pieces, self.params[Pretrain].max_tokens)
        return 24 * shape.layers * shape.width**2 * (patches + pieces)

    def training_units(self, model: str, settings: Train) -> float:
        size = self.size
        ranking = RANKED_ITEM * size.items * size.users
        if issubclass(MODELS[model], Untrained):
            return CUBED_ITEMS * size.items**3 + ranking

        steps = math.ceil(size.interactions / settings.batch_size)
        step = STEP + settings.dim * (size.interactions + ITEM * size.items)
        best_epoch = min(TYPICAL_BEST_EPOCH, BEST_EPOCH_TIMES_RATE / settings.lr)
        epochs = min(settings.epochs, best_epoch + settings.patience)
        return epochs * (steps * step + ranking)


def estimate_encode(work: Workload) -> Estimate:
    kinds = {name: kind_of(work.params.encoders, name) for name in work.params[Encode].encoders}
    operations = 0.0
    for kind in kinds.values():
        image, piece = OPERATIONS.get(kind, BASE_OPERATIONS)
        operations += image + piece * work.size.pieces

    guessed = [name for name, kind in kinds.items() if kind not in OPERATIONS]
    as_base = f"; as a base model: {', '.join(guessed)}" if guessed else ""
    return Estimate(
        seconds=work.seconds("encode", work.size.items * operations),
        disk=FLOAT_BYTES * WIDTH * work.size.items * len(kinds),
        basis=f"{len(kinds)} encoders{as_base}",
    )


def estimate_pretrain(work: Workload) -> Estimate:
    pretrain, shape = work.params[Pretrain], work.shape
    passes = pretrain.steps * pretrain.batch_size
    operations = work.beit3_operations()
    weights = 24 * shape.layers * shape.width**2 + 2 * shape.vocab * shape.width
    activations = 4 * operations * pretrain.batch_size / pretrain.accumulate / shape.width
    return Estimate(
        seconds=work.seconds("pretrain", passes * operations),
        memory=TORCH_BYTES + 4 * FLOAT_BYTES * weights + activations,
        disk=8 * FLOAT_BYTES * weights,  # a checkpoint replaces another
        basis=f"{'at most ' * bool(pretrain.patience)}{passes:,} items",
    )


def estimate_beit3(work: Workload) -> Estimate:
    sets = len(work.params[BEiT3Sets].sets)
    return Estimate(
        seconds=work.seconds("beit3", sets * work.size.items * work.beit3_operations()),
        disk=FLOAT_BYTES * sets * work.size.items * work.shape.width,
        basis=f"{sets} sets",
    )


def estimate_graph(work: Workload) -> Estimate:
    items, sets = work.size.items, len(work.sets)
    compared = items if items <= work.params[Graph].exact_up_to else 12 * items**0.5
    return Estimate(work.seconds("graph", sets * items * compared * WIDTH), basis=f"{sets} sets")


def estimate_train(work: Workload) -> Estimate:
    return Estimate(
        seconds=work.seconds("train", work.training_units(RELEASED, work.settings)),
        memory=work.training_bytes,
        basis=f"at most {work.settings.epochs} epochs",
    )


def estimate_probe(work: Workload) -> Estimate:
    items = work.size.items
    sets = len(work.params[ProbeParams].features or work.sets)
    ranked = items * min(work.size.users, sample_size(items))
    return Estimate(work.seconds("probe", sets * ranked), basis=f"{sets} sets")


def estimate_benchmark(work: Workload) -> Estimate:
    benchmark = work.params[Benchmark]
    trials = 1 + benchmark.budget
    labels = list_labels(work.params)
    units = 0.0
    for label in labels:
        settings = model_settings(work.params, label.model, label.ablation)
        units += trials * work.training_units(label.model, settings)
    return Estimate(
        seconds=work.seconds("benchmark", units / benchmark.workers),
        memory=benchmark.workers * work.training_bytes,
        disk=RUN_BYTES * work.size.users * len(labels),
        basis=f"{trials * len(labels):,} trainings",
    )


def estimate_study(work: Workload) -> Estimate:
    study = work.params[Study]
    trainings = study.trainings(len(maskable_sets(work.sets)))
    units = trainings * work.training_units(RELEASED, work.settings)
    return Estimate(
        seconds=work.seconds("study", units / study.workers),
        disk=RUN_BYTES * work.size.users * trainings,
        basis=f"{trainings:,} trainings",
    )


ESTIMATES: dict[str, Callable[[Workload], Estimate]] = {
    "encode": estimate_encode,
    "pretrain": estimate_pretrain,
    "beit3": estimate_beit3,
    "graph": estimate_graph,
    "train": estimate_train,
    "probe": estimate_probe,
    "benchmark": estimate_benchmark,
    "study": estimate_study,
}


def estimate_stages(work: Workload) -> dict[str, Estimate]:
    """Return the cost of each stage that takes more than seconds, by name."""
    idle = [] if work.params[BEiT3Sets].sets else ["pretrain", "beit3"]
    if not work.size.pieces:
        idle += ["encode", "pretrain", "beit3"]
    return {name: estimate(work) for name, estimate in ESTIMATES.items() if name not in idle}
