"""Estimate hours, memory and disk of the stages that take more than seconds.

A stage does units of work, each of which takes as long as so many operations of a matrix product.
UNIT_COSTS were measured on Baby, on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from alignrec.commands.size import Size
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, MiniConfig
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
    "encode": 2.0,  # an operation of a network
    "pretrain": 7.0,  # an operation of a forward pass, in training
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
PROCESS_BYTES = 5e8
TORCH_BYTES = 2e9  # memory of a stage with MiniLM and the CNN
RUN_BYTES = 200  # of a user, in a run of the benchmark


class Work(NamedTuple):
    """What a stage does."""

    units: float
    basis: str  # the most expensive part
    memory: float = 0.0  # peak, bytes; 0: less than other stages need
    disk: float = 0.0  # bytes of its outputs


def list_work(params: Parameters, dataset: str, size: Size) -> Iterator[tuple[str, Work]]:
    """Yield the stages that take more than seconds, with their work."""
    sets = DeclaredSets(params, dataset).names()
    if size.pieces:
        yield "encode", _count_encoding(params, size)
    if size.pieces and params[BEiT3Sets].sets:
        yield from _count_beit3(params, size)

    items = size.items
    compared = items if items <= params[Graph].exact_up_to else 12 * items**0.5
    yield "graph", Work(len(sets) * items * compared * WIDTH, f"{len(sets)} sets")
    judged = params[ProbeParams].features or sets
    ranked = items * min(size.users, sample_size(items))
    yield "probe", Work(len(judged) * ranked, f"{len(judged)} sets")
    yield from _count_trainings(params, size, len(maskable_sets(sets)))


def _count_encoding(params: Parameters, size: Size) -> Work:
    encoders = params[Encode].encoders
    operations = 0.0
    guessed = []
    for name in encoders:
        kind = kind_of(params.encoders, name)
        if kind not in OPERATIONS:
            guessed.append(name)
        image, piece = OPERATIONS.get(kind, BASE_OPERATIONS)
        operations += image + piece * size.pieces

    as_base = f"; as a base model: {', '.join(guessed)}" if guessed else ""
    return Work(
        units=size.items * operations,
        basis=f"{len(encoders)} encoders{as_base}",
        disk=FLOAT_BYTES * WIDTH * size.items * len(encoders),
    )


def _count_beit3(params: Parameters, size: Size) -> Iterator[tuple[str, Work]]:
    pretrain = params[Pretrain]
    shape = BEIT3_CONFIGS.get(pretrain.size) or MiniConfig()
    layers = 24 * shape.layers * shape.width**2  # weights, and operations of a token
    operations = layers * (getattr(shape, "patches", 1) + min(size.pieces, pretrain.max_tokens))

    passes = pretrain.steps * pretrain.batch_size
    weights = layers + 2 * shape.vocab * shape.width
    activations = 4 * operations * pretrain.batch_size / pretrain.accumulate / shape.width
    yield (
        "pretrain",
        Work(
            units=passes * operations,
            basis=f"{'at most ' * bool(pretrain.patience)}{passes:,} items",
            memory=TORCH_BYTES + 4 * FLOAT_BYTES * weights + activations,
            disk=8 * FLOAT_BYTES * weights,  # a checkpoint replaces another
        ),
    )
    made = len(params[BEiT3Sets].sets) * size.items
    disk = FLOAT_BYTES * made * shape.width
    yield "beit3", Work(made * operations, f"{made:,} vectors", disk=disk)


def _count_trainings(params: Parameters, size: Size, maskable: int) -> Iterator[tuple[str, Work]]:
    settings = params[TrainSettings].resolved()
    benchmark, study = params[Benchmark], params[Study]
    # moments of embeddings and features, and the log
    numbers = 12 * settings.dim * (size.users + size.items) + 3 * WIDTH * size.items
    memory = PROCESS_BYTES + FLOAT_BYTES * (numbers + LOG * size.interactions)
    one = count_training(RELEASED, settings, size)
    yield "train", Work(one, f"at most {settings.epochs} epochs", memory)

    trials = 1 + benchmark.budget
    trained = [
        count_training(label.model, model_settings(params, label.model, label.ablation), size)
        for label in list_labels(params)
    ]
    masked = study.trainings(maskable)
    for stage, units, count, workers in (
        ("benchmark", trials * sum(trained), trials * len(trained), benchmark.workers),
        ("study", masked * one, masked, study.workers),
    ):
        disk = RUN_BYTES * size.users * count
        yield stage, Work(units / workers, f"{count:,} trainings", workers * memory, disk)


def count_training(model: str, settings: Train, size: Size) -> float:
    """Return the units of work of a training."""
    ranking = RANKED_ITEM * size.items * size.users
    if issubclass(MODELS[model], Untrained):
        return CUBED_ITEMS * size.items**3 + ranking

    steps = math.ceil(size.interactions / settings.batch_size)
    step = STEP + settings.dim * (size.interactions + ITEM * size.items)
    best_epoch = min(TYPICAL_BEST_EPOCH, BEST_EPOCH_TIMES_RATE / settings.lr)
    epochs = min(settings.epochs, best_epoch + settings.patience)
    return epochs * (steps * step + ranking)


class Estimate(NamedTuple):
    """Estimated cost of a stage."""

    seconds: float
    memory: float
    disk: float
    basis: str = ""


def estimate_stages(
    params: Parameters, dataset: str, size: Size, rate: float
) -> dict[str, Estimate]:
    """Return the cost of each stage that takes more than seconds, where a matrix product has `rate`
    operations a second.
    """
    costs = {}
    for stage, work in list_work(params, dataset, size):
        seconds = START_SECONDS + UNIT_COSTS[stage] * work.units / rate
        costs[stage] = Estimate(seconds, work.memory, work.disk, work.basis)
    return costs
