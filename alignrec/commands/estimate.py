"""Estimate time, memory and disk of each stage: a function a stage.

Constants were measured on `sample` and Baby, on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from alignrec import schemas
from alignrec.commands.networks import find_size, list_models, read_tokens
from alignrec.commands.workload import (
    FLOAT_BYTES,
    FLOPS_PER_IMAGE,
    FLOPS_PER_PIECE,
    GEMM_SHARE,
    JOINED_WIDTH,
    PROCESS_BYTES,
    RANKED_PER_SECOND,
    SETUP_SECONDS,
    Workload,
)
from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.benchmark.params import Benchmark, Study
from alignrec.pipeline.evaluation.benchmark.plan import list_labels
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.evaluation.probe.cold_items import DRAWS
from alignrec.pipeline.evaluation.probe.judge import POWERS
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.questions import sample_size
from alignrec.pipeline.features.names import LINEAR, maskable_sets
from alignrec.pipeline.features.params import Graph, SemanticIds
from alignrec.pipeline.images.params import RATE, Images
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.ease import Closed
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.sources.base import Downloaded

START_SECONDS = 2.0  # of a stage
TORCH_BYTES = 7e8  # memory of a stage with torch
FROZEN_BYTES = 1.2e9  # memory of MiniLM and the CNN, including a batch

WITHOUT_NETWORK = ("tfidf", "descriptors")  # kinds of encoders
LOAD_SECONDS = 3.0  # of an encoder's libraries and weights, after the start of its process
PROBES_OF_QUESTIONS = 3  # zero-shot, Item-CF and content neighbours

EDGE_BYTES = 14
ITEM_BYTES = 2e3  # of an item's text and columns
IMAGE_BYTES = 18e3
CELL_BYTES_PER_USER = 200  # of a cell of the benchmark


class Estimate(NamedTuple):
    """Estimated cost of a stage."""

    seconds: float
    memory: float  # peak, bytes
    disk: float  # bytes of its outputs
    basis: str = ""  # the most expensive part


def estimate_download(work: Workload) -> Estimate:
    return Estimate(0.0, PROCESS_BYTES, work.downloads, "as fast as the network is")


def estimate_interactions(work: Workload) -> Estimate:
    log = work.log_bytes
    return Estimate(log / 4e7, PROCESS_BYTES + 10 * log, log)


def estimate_items(work: Workload) -> Estimate:
    items = work.size.items
    return Estimate(items / 1e4, PROCESS_BYTES, ITEM_BYTES * items, "lines of the metadata")


def estimate_images(work: Workload) -> Estimate:
    images = work.params[Images]
    n_images = work.size.items
    is_local = images.folder or images.pattern
    is_fetched = isinstance(work.params.source(work.dataset), Downloaded) and not is_local

    requests = n_images / RATE if is_fetched else 0.0
    basis = "requests to one host" if requests else "decoding"
    return Estimate(max(n_images / 600, requests), PROCESS_BYTES, IMAGE_BYTES * n_images, basis)


def estimate_pretrain(work: Workload) -> Estimate:
    pretrain, shape = work.params[Pretrain], work.shape
    has_own_teachers = bool(pretrain.distill) and pretrain.size != "mini"
    is_taught = bool(pretrain.steps and pretrain.distill) or pretrain.size == "mini"

    # a step costs three forward passes, or six with teachers
    passes_per_step = 6 if has_own_teachers else 3
    passes = passes_per_step * pretrain.steps * pretrain.batch_size / work.size.items
    # training, then the map of CLS from whole texts, and one pass of the teachers
    seconds = passes * work.beit3_seconds() + work.beit3_seconds(chunks=pretrain.chunks)

    # four floats each in AdamW, with both heads
    trained = shape.weights + (shape.vocab + shape.codes) * shape.width
    items_per_pass = math.ceil(pretrain.batch_size / pretrain.accumulate)
    tokens_per_item = 1 + shape.patches + min(work.size.pieces, pretrain.max_tokens)
    activations = 90 * tokens_per_item * items_per_pass * shape.width * shape.layers
    memory = TORCH_BYTES + 4 * FLOAT_BYTES * trained + activations
    if is_taught:
        seconds += 10 + work.frozen_seconds
        memory += FROZEN_BYTES

    # two checkpoints while one replaces the other
    copies = 2 if pretrain.init else 1
    checkpoint = 3 * FLOAT_BYTES * trained  # weights and two moments
    disk = FLOAT_BYTES * shape.weights * copies + 2 * checkpoint
    bound = "at most " if pretrain.patience else ""
    basis = f"{bound}{pretrain.steps:,} steps of {pretrain.batch_size}"
    return Estimate(seconds, memory, disk, basis)


class NetworkCost(NamedTuple):
    """Cost of an encoder that is a network."""

    operations: float  # per item
    weight_bytes: float = 0.0  # of a third-party model
    is_known: bool = True  # False: counted as MiniLM and the CNN


def estimate_networks(work: Workload) -> dict[str, NetworkCost]:
    """Return the cost of each encoder that is a network, by name."""
    models = {model.key: model for model in list_models(work.params)}
    pieces = work.size.pieces
    image = FLOPS_PER_IMAGE
    text = FLOPS_PER_PIECE * pieces
    built_in = {
        "minilm": NetworkCost(text),
        "cnn": NetworkCost(image),
        "minilm-cnn": NetworkCost(image + text),
    }

    costs = {}
    for name, kind in zip(work.params[Encode].encoders, work.encoder_kinds, strict=True):
        if kind in WITHOUT_NETWORK:
            continue
        costs[name] = built_in.get(kind, NetworkCost(image + text, is_known=False))

        key = f"encoders.{name}.model"
        size = find_size(models[key], work.on_hub.get(key)) if key in models else None
        if size is not None:
            read = read_tokens(models[key], pieces)
            operations = size.operations(read)
            costs[name] = NetworkCost(operations, FLOAT_BYTES * size.stored)

    return costs


def estimate_encode(work: Workload) -> Estimate:
    networks = estimate_networks(work)
    operations = sum(cost.operations for cost in networks.values())
    largest = max((cost.weight_bytes for cost in networks.values()), default=0.0)

    basis = f"{len(networks)} networks"
    unknown = [name for name, cost in networks.items() if not cost.is_known]
    if unknown:
        basis += f", size unknown: {', '.join(unknown)}"

    encoders = len(work.encoder_kinds)
    seconds = work.size.items * operations / (GEMM_SHARE * work.gemm)
    return Estimate(
        seconds=encoders * (START_SECONDS + LOAD_SECONDS) + seconds,
        memory=TORCH_BYTES + FROZEN_BYTES + largest,
        disk=work.vector_bytes * encoders,
        basis=basis,
    )


def estimate_beit3(work: Workload) -> Estimate:
    beit3 = work.params[BEiT3Sets]
    seconds = 0.0
    for name in beit3.sets:
        modalities = schemas.modalities_of(name)
        seconds += work.beit3_seconds("image" in modalities, "text" in modalities, beit3.chunks)

    weight_bytes = 2 * FLOAT_BYTES * work.shape.weights
    set_bytes = FLOAT_BYTES * work.size.items * work.shape.width
    return Estimate(
        seconds=3 + seconds,
        memory=TORCH_BYTES + FROZEN_BYTES + weight_bytes + 2 * work.vector_bytes,
        disk=set_bytes * len(beit3.sets) + weight_bytes,
        basis=f"{len(beit3.sets)} sets",
    )


def estimate_combine(work: Workload) -> Estimate:
    combined = len(work.sets) - len(work.params[BEiT3Sets].sets) - len(work.encoder_kinds)
    fitted = [name for name in work.sets if work.kind_of_set(name) == LINEAR]
    return Estimate(
        seconds=combined * work.write_seconds + len(fitted) * work.linear_seconds,
        memory=PROCESS_BYTES + 2 * work.vector_bytes,
        disk=work.vector_bytes * combined,
        basis=f"{combined} sets",
    )


def estimate_graph(work: Workload) -> Estimate:
    """Neighbour search: three passes over the compared pairs, at the rate of matrix products."""
    graph, items, sets = work.params[Graph], work.size.items, len(work.sets)
    is_small = graph.index == "auto" and items <= graph.exact_up_to
    is_exact = graph.index == "exact" or is_small
    compared = items if is_exact else 12 * items**0.5

    return Estimate(
        seconds=sets * 3 * compared * items * work.seconds_per_product,
        memory=PROCESS_BYTES + 2 * work.vector_bytes,
        disk=EDGE_BYTES * items * graph.k * sets,
    )


def estimate_semantic_ids(work: Workload) -> Estimate:
    ids, items = work.params[SemanticIds], work.size.items
    sets = len(ids.features)
    products = 60 * items * ids.levels * ids.codes
    floats = ids.levels * (items + ids.codes * JOINED_WIDTH)
    return Estimate(
        seconds=sets * (SETUP_SECONDS + products * work.seconds_per_product),
        memory=TORCH_BYTES + work.vector_bytes,
        disk=sets * FLOAT_BYTES * floats,
    )


def estimate_train(work: Workload) -> Estimate:
    return Estimate(
        seconds=2 + work.training_seconds(RELEASED, work.settings),
        memory=work.training_bytes,
        disk=FLOAT_BYTES * work.embedding_bytes,
        basis=f"at most {work.settings.epochs} epochs",
    )


def estimate_probe(work: Workload) -> Estimate:
    """Ranks of all probes, of each set raw and processed."""
    items, users = work.size.items, work.size.users
    sets = len(work.params[ProbeParams].features or work.sets)
    questions = min(sample_size(items), max(users, items))

    ranked = PROBES_OF_QUESTIONS * questions + work.cold_ranks(DRAWS)
    products = 4 * min(questions, items)

    widths = JOINED_WIDTH, work.params[ProbeParams].width  # raw and processed
    ranked = len(widths) * ranked + len(POWERS) * work.judged_users
    per_item = ranked / RANKED_PER_SECOND + products * sum(widths) / work.gemm
    similarities = min(FLOAT_BYTES * items**2, 4e9)
    return Estimate(
        seconds=3 + sets * items * per_item,
        memory=TORCH_BYTES + 2 * work.vector_bytes + 3e8 + similarities,
        disk=1e5,
        basis=f"{sets} sets",
    )


def estimate_benchmark(work: Workload) -> Estimate:
    params, benchmark = work.params, work.params[Benchmark]
    labels = list_labels(params)
    seconds = 0.0
    has_closed = False
    trainings = 0
    for label in labels:
        is_closed = issubclass(MODELS[label.model], Closed)
        has_closed |= is_closed
        if is_closed and label.seed:  # without randomness, runs of all seeds are one
            continue
        trainings += 1
        settings = model_settings(params, label.model, label.ablation)
        seconds += work.training_seconds(label.model, settings)

    # closed-form models hold item-item matrices
    memory_per_worker = work.training_bytes
    if has_closed:
        memory_per_worker += 3 * FLOAT_BYTES * work.size.items**2
    trainings_per_entry = 1 + benchmark.budget
    return Estimate(
        seconds=5 + trainings_per_entry * seconds / benchmark.workers,
        memory=TORCH_BYTES + benchmark.workers * memory_per_worker,
        disk=trainings * CELL_BYTES_PER_USER * work.size.users,
        basis=f"{trainings * trainings_per_entry:,} trainings",
    )


def estimate_study(work: Workload) -> Estimate:
    study = work.params[Study]
    trainings = study.trainings(len(maskable_sets(work.sets)))
    setup = 0 if study.is_empty else 10
    training_seconds = work.training_seconds(RELEASED, work.settings)
    return Estimate(
        seconds=setup + 1.5 * trainings * training_seconds / study.workers,
        memory=TORCH_BYTES + study.workers * work.training_bytes,
        disk=trainings * CELL_BYTES_PER_USER * work.size.users,
        basis=f"{trainings:,} trainings",
    )


def estimate_report(work: Workload) -> Estimate:
    items = work.size.items
    return Estimate(2 + 6e-4 * items, PROCESS_BYTES + 1e3 * items, 5e6, "the map")


def estimate_publish(work: Workload) -> Estimate:
    feature_bytes = work.vector_bytes * len(work.params[Publish].features)
    is_trained = work.size.pieces and work.params[BEiT3Sets].sets
    weight_bytes = FLOAT_BYTES * work.shape.weights if is_trained else 0
    released = feature_bytes + weight_bytes + ITEM_BYTES * work.size.items
    return Estimate(
        seconds=3 + released / 2e8,
        memory=PROCESS_BYTES + work.vector_bytes,
        disk=released,
        basis="copies and hashes",
    )


ESTIMATES: dict[str, Callable[[Workload], Estimate]] = {
    "download": estimate_download,
    "interactions": estimate_interactions,
    "items": estimate_items,
    "images": estimate_images,
    "pretrain": estimate_pretrain,
    "encode": estimate_encode,
    "beit3": estimate_beit3,
    "combine": estimate_combine,
    "graph": estimate_graph,
    "semantic_ids": estimate_semantic_ids,
    "train": estimate_train,
    "probe": estimate_probe,
    "benchmark": estimate_benchmark,
    "study": estimate_study,
    "report": estimate_report,
    "publish": estimate_publish,
}


def estimate_stages(work: Workload) -> dict[str, Estimate]:
    idle: dict[str, str] = {}  # stage -> why it has nothing to do
    if not work.params[BEiT3Sets].sets:
        idle = dict.fromkeys(("pretrain", "beit3"), "no feature set is BEiT3's")
    if not work.size.pieces:
        idle |= dict.fromkeys(("items", "images", "pretrain"), "items have no content")

    stages = {}
    for name, estimate in ESTIMATES.items():
        if name in idle:
            stages[name] = Estimate(START_SECONDS, PROCESS_BYTES, 0, idle[name])
        else:
            cost = estimate(work)
            stages[name] = cost._replace(seconds=cost.seconds + START_SECONDS)

    return stages


def add_up(stages: Iterable[Estimate]) -> Estimate:
    """Return the cost of stages that run one after another."""
    costs = list(stages)
    return Estimate(
        seconds=sum(cost.seconds for cost in costs),
        memory=max(cost.memory for cost in costs),
        disk=sum(cost.disk for cost in costs),
    )
