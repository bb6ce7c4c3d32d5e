"""Estimate time, memory and disk of each stage: a function a stage.

Constants were measured on `sample` and Baby, on two cores.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from alignrec import schemas
from alignrec.commands.networks import find_size, list_models, read_tokens
from alignrec.commands.size import Size
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, BEiT3Config
from alignrec.pipeline.beit3.inference import count_flops
from alignrec.pipeline.beit3.params import VOCAB, BEiT3Sets, Pretrain
from alignrec.pipeline.benchmark.params import Benchmark, Study
from alignrec.pipeline.benchmark.plan import list_labels
from alignrec.pipeline.benchmark.settings import model_settings
from alignrec.pipeline.dataset.profiles import COLD_SHARE, MAX_SCORES, MAX_USERS, MIN_USERS
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import kind_of
from alignrec.pipeline.features.kinds.linear import CHOICES, COLD_DRAWS
from alignrec.pipeline.features.names import LINEAR, DeclaredSets, maskable_sets
from alignrec.pipeline.features.params import Graph, SemanticIds
from alignrec.pipeline.images.params import RATE, Images
from alignrec.pipeline.linalg.device import busy_gemm_rate, gemm_rate, pick_device
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.base import Untrained
from alignrec.pipeline.models.ease import Closed
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.probe.cold_items import DRAWS
from alignrec.pipeline.probe.judge import POWERS
from alignrec.pipeline.probe.linear_cf import CONTENT_RIDGES, MAX_MATRIX_GIB, RIDGES, SHARES
from alignrec.pipeline.probe.params import ProbeParams
from alignrec.pipeline.probe.questions import sample_size
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources.base import Downloaded

BUSY_SECONDS = 0.5  # of short products, so that some are undisturbed
START_SECONDS = 3.0  # of a stage
PROCESS_BYTES = 5e8  # memory of a stage without torch
TORCH_BYTES = 7e8  # memory of a stage with torch

# MiniLM and the CNN
FROZEN_BYTES = 1.2e9  # memory, including a batch
FLOPS_PER_IMAGE = 8e8
FLOPS_PER_PIECE = 2.1e7
JOINED_WIDTH = 1664

WITHOUT_NETWORK = ("tfidf", "descriptors")  # kinds of encoders
LOAD_SECONDS = 3.0  # of an encoder's libraries and weights, after the start of its process

# fraction of the GEMM rate: BEiT3 by size, other networks
GEMM_SHARE_OF_SIZE = {"small": 0.15, "mini": 0.35}
GEMM_SHARE = 0.5
# shape with the FLOPs of size mini: CLS and one patch account for its two image tokens
MINI = BEiT3Config(
    image=1, patch=1, vocab=8000, width=384, layers=6, heads=12, ffn=1536, positions=256
)
PUBLISHED_CODES = 8192  # codes of a published VQ-KD tokenizer

WITHOUT_GRAPH = ("bpr", "vbpr")  # trained models
TYPICAL_BEST_EPOCH = 40
TRAIN_SHARE = 0.75  # of the interactions
SECONDS_PER_STEP = 0.007  # without a graph
GRAPH_OPERATIONS_PER_SECOND = 1.4e10
# per interaction and number of its vectors: of LightGCN, two products a layer in both passes, over
# the train interactions; of models with content, whose other graphs count with them
OPERATIONS_PER_LAYER = 8 * TRAIN_SHARE
OPERATIONS_PER_EDGE = 40
SCORES_PER_SECOND = 7e7
RANKED_PER_SECOND = 1.2e8  # items for a user, by the probes, of two sets side by side
PROBES_OF_QUESTIONS = 3  # zero-shot, Item-CF and content neighbours
VALID_SHARE = 0.1  # of the interactions
FIT_SECONDS = 0.12  # of principal components
FIT_SHARE = 0.2  # of the GEMM rate: float64 on one thread
WRITTEN_PER_SECOND = 1e8  # bytes of vectors
SETUP_SECONDS = 0.5  # of a training, in a process that runs

FLOAT_BYTES = 4
LOG_BYTES = 40  # of an interaction, in memory and on disk
EDGE_BYTES = 14
ITEM_BYTES = 2e3  # of an item's text and columns
IMAGE_BYTES = 18e3
CELL_BYTES_PER_USER = 200  # of a cell of the benchmark


class Machine(NamedTuple):
    """Speed of this machine."""

    gemm: float  # float32 matrix product rate, at most that of the idle machine, FLOP/s
    idle: float = 1.0  # fraction of CPU time that other processes leave now

    def __str__(self) -> str:
        rate = f"computed for {self.gemm / 1e12:.2f} TFLOP/s"
        if self.idle >= process.MIN_IDLE_SHARE:
            return f"{rate}, measured now"
        cores = os.cpu_count() or 1
        return (
            f"the machine is busy: {self.idle * cores:.1f} of {cores} cores are free; "
            f"{rate}, and when idle it may take less time"
        )


def measure_machine() -> Machine:
    idle = process.measure_idle_share()
    rate = gemm_rate("float32", BUSY_SECONDS, short=True)
    if idle < process.MIN_IDLE_SHARE and pick_device().type == "cpu":
        rate = max(rate, busy_gemm_rate(BUSY_SECONDS))
    return Machine(rate, idle)


class Estimate(NamedTuple):
    """Estimated cost of a stage."""

    seconds: float
    memory: float  # peak, bytes
    disk: float  # bytes of its outputs
    basis: str = ""  # the most expensive part


@dataclass(frozen=True)
class Plan:
    """Inputs of the estimates."""

    params: Parameters
    dataset: str
    size: Size
    gemm: float  # float32 matrix product rate of this machine, FLOP/s
    downloads: float = 0.0  # bytes of the raw files whose size servers report
    # key of params.yaml -> parameters of the third-party model that it names, if the Hub knows them
    on_hub: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def sets(self) -> list[str]:
        return DeclaredSets(self.params, self.dataset).names()

    @cached_property
    def encoder_kinds(self) -> list[str]:
        return [kind_of(self.params.encoders, name) for name in self.params[Encode].encoders]

    @cached_property
    def shape(self) -> BEiT3Config:
        pretrain = self.params[Pretrain]
        vocab = BEiT3Config().vocab if pretrain.tokenizer else VOCAB
        codes = PUBLISHED_CODES if pretrain.vqkd else pretrain.codes
        shape = MINI if pretrain.size == "mini" else BEIT3_CONFIGS[pretrain.size]
        return replace(shape, vocab=vocab, codes=codes)

    @cached_property
    def settings(self) -> Train:
        """Settings of the released recommender."""
        return self.params[TrainSettings].resolved()

    @property
    def vector_bytes(self) -> float:
        """Bytes of one feature set of the usual width."""
        return FLOAT_BYTES * self.size.items * JOINED_WIDTH

    @property
    def log_bytes(self) -> float:
        return LOG_BYTES * self.size.interactions

    @property
    def embedding_bytes(self) -> float:
        """Bytes of the released recommender's users and items."""
        return FLOAT_BYTES * (self.size.users + self.size.items) * self.settings.dim

    @property
    def training_bytes(self) -> float:
        """Memory of one training."""
        return PROCESS_BYTES + 3 * self.vector_bytes + 12 * self.embedding_bytes + self.log_bytes

    @property
    def seconds_per_product(self) -> float:
        """Seconds of one scalar product of two vectors."""
        return JOINED_WIDTH / self.gemm

    @property
    def frozen_seconds(self) -> float:
        operations_per_item = FLOPS_PER_IMAGE + FLOPS_PER_PIECE * self.size.pieces
        return self.size.items * operations_per_item / (GEMM_SHARE * self.gemm)

    @property
    def judged_users(self) -> int:
        """Users that are drawn to compare forms of a feature set."""
        drawn = max(MIN_USERS, MAX_SCORES // max(1, self.size.items))
        return min(self.size.users, MAX_USERS, drawn)

    def cold_ranks(self, draws: int, share: float = 1.0) -> float:
        """Return how often all items are ranked where, in each draw, the cold ones alone are.

        `share` is the fraction of the interactions whose items are to be found.
        """
        targets = share * self.size.interactions * self.judged_users / max(1, self.size.users)
        return draws * COLD_SHARE * (self.judged_users + COLD_SHARE * targets)

    @property
    def write_seconds(self) -> float:
        """Seconds to make a set of vectors of other sets, and write it."""
        return 0.1 + self.vector_bytes / WRITTEN_PER_SECOND

    @property
    def linear_seconds(self) -> float:
        """Seconds to fit `linear` in each form that validation chooses from."""
        ranked = self.judged_users + self.cold_ranks(COLD_DRAWS, VALID_SHARE)
        per_choice = FIT_SECONDS + 2 * ranked * self.size.items / RANKED_PER_SECOND
        moments = 4 * self.size.items * JOINED_WIDTH**2 / (FIT_SHARE * self.gemm)
        return moments + len(CHOICES) * per_choice

    def kind_of_set(self, name: str) -> str:
        return str(DeclaredSets(self.params, self.dataset).definition_of(name)["kind"])

    def beit3_seconds(self, image: bool = True, text: bool = True, chunks: int = 1) -> float:
        """Estimate a forward pass over all items, with texts split into at most `chunks` parts."""
        pretrain = self.params[Pretrain]
        max_tokens = self.params[BEiT3Sets].max_tokens or pretrain.max_tokens
        pieces = self.size.pieces if text else 0

        # the image is encoded again with each part of the text
        parts = min(chunks, max(1, math.ceil(pieces / max_tokens)))
        pieces_per_part = min(math.ceil(pieces / parts), max_tokens)
        operations = parts * count_flops(self.shape, image, pieces_per_part)

        share = GEMM_SHARE_OF_SIZE.get(pretrain.size, GEMM_SHARE)
        return self.size.items * operations / (share * self.gemm)

    def training_seconds(self, model: str, settings: Train) -> float:
        size = self.size
        ranking = size.users * size.items / SCORES_PER_SECOND
        if issubclass(MODELS[model], Closed):
            return SETUP_SECONDS + 3 * size.items**3 / self.gemm + ranking
        if issubclass(MODELS[model], Untrained):
            return SETUP_SECONDS + ranking

        content = MODELS[model].needs
        # a step propagates over the graph in both passes
        edges = 0.0 if model in WITHOUT_GRAPH else size.interactions * settings.dim
        per_edge = (
            OPERATIONS_PER_EDGE
            if content
            else OPERATIONS_PER_LAYER * getattr(settings, "layers", 1)
        )
        step = SECONDS_PER_STEP + per_edge * edges / GRAPH_OPERATIONS_PER_SECOND
        if content:  # models project all items
            step += 6 * size.items * JOINED_WIDTH * settings.dim / self.gemm

        batches = math.ceil(TRAIN_SHARE * size.interactions / settings.batch_size)
        epochs = min(settings.epochs, TYPICAL_BEST_EPOCH + settings.patience)
        return SETUP_SECONDS + epochs * (batches * step + ranking)


def estimate_download(plan: Plan) -> Estimate:
    return Estimate(0.0, PROCESS_BYTES, plan.downloads, "as fast as the network is")


def estimate_interactions(plan: Plan) -> Estimate:
    log = plan.log_bytes
    return Estimate(log / 4e7, PROCESS_BYTES + 10 * log, log)


def estimate_items(plan: Plan) -> Estimate:
    items = plan.size.items
    return Estimate(items / 1e4, PROCESS_BYTES, ITEM_BYTES * items, "lines of the metadata")


def estimate_images(plan: Plan) -> Estimate:
    images = plan.params[Images]
    n_images = images.most * plan.size.items
    is_local = images.folder or images.pattern
    is_fetched = isinstance(plan.params.source(plan.dataset), Downloaded) and not is_local

    requests = n_images / RATE if is_fetched else 0.0
    basis = "requests to one host" if requests else "decoding"
    return Estimate(max(n_images / 600, requests), PROCESS_BYTES, IMAGE_BYTES * n_images, basis)


def estimate_pretrain(plan: Plan) -> Estimate:
    pretrain, shape = plan.params[Pretrain], plan.shape
    has_own_teachers = bool(pretrain.distill) and pretrain.size != "mini"
    is_taught = bool(pretrain.steps and pretrain.distill) or pretrain.size == "mini"

    # a step costs three forward passes, or six with teachers
    passes_per_step = 6 if has_own_teachers else 3
    passes = passes_per_step * pretrain.steps * pretrain.batch_size / plan.size.items
    # training, then the map of CLS from whole texts, and one pass of the teachers
    seconds = passes * plan.beit3_seconds() + plan.beit3_seconds(chunks=pretrain.chunks)

    # four floats each in AdamW, with both heads
    trained = shape.weights + (shape.vocab + shape.codes) * shape.width
    items_per_pass = math.ceil(pretrain.batch_size / pretrain.accumulate)
    tokens_per_item = 1 + shape.patches + min(plan.size.pieces, pretrain.max_tokens)
    activations = 90 * tokens_per_item * items_per_pass * shape.width * shape.layers
    memory = TORCH_BYTES + 4 * FLOAT_BYTES * trained + activations
    if is_taught:
        seconds += 10 + plan.frozen_seconds
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


def estimate_networks(plan: Plan) -> dict[str, NetworkCost]:
    """Return the cost of each encoder that is a network, by name."""
    models = {model.key: model for model in list_models(plan.params)}
    pieces = plan.size.pieces
    image = FLOPS_PER_IMAGE * plan.params[Images].most
    text = FLOPS_PER_PIECE * pieces
    built_in = {
        "minilm": NetworkCost(text),
        "cnn": NetworkCost(image),
        "minilm-cnn": NetworkCost(image + text),
    }

    costs = {}
    for name, kind in zip(plan.params[Encode].encoders, plan.encoder_kinds, strict=True):
        if kind in WITHOUT_NETWORK:
            continue
        costs[name] = built_in.get(kind, NetworkCost(image + text, is_known=False))

        key = f"encoders.{name}.model"
        size = find_size(models[key], plan.on_hub.get(key)) if key in models else None
        if size is not None:
            read = read_tokens(models[key], pieces)
            operations = size.operations(read, plan.params[Images].most)
            costs[name] = NetworkCost(operations, FLOAT_BYTES * size.stored)

    return costs


def estimate_encode(plan: Plan) -> Estimate:
    networks = estimate_networks(plan)
    operations = sum(cost.operations for cost in networks.values())
    largest = max((cost.weight_bytes for cost in networks.values()), default=0.0)

    basis = f"{len(networks)} networks"
    unknown = [name for name, cost in networks.items() if not cost.is_known]
    if unknown:
        basis += f", size unknown: {', '.join(unknown)}"

    encoders = len(plan.encoder_kinds)
    seconds = plan.size.items * operations / (GEMM_SHARE * plan.gemm)
    return Estimate(
        seconds=encoders * (START_SECONDS + LOAD_SECONDS) + seconds,
        memory=TORCH_BYTES + FROZEN_BYTES + largest,
        disk=plan.vector_bytes * encoders,
        basis=basis,
    )


def estimate_beit3(plan: Plan) -> Estimate:
    beit3 = plan.params[BEiT3Sets]
    seconds = 0.0
    for name in beit3.sets:
        modalities = schemas.modalities_of(name)
        seconds += plan.beit3_seconds("image" in modalities, "text" in modalities, beit3.chunks)

    weight_bytes = 2 * FLOAT_BYTES * plan.shape.weights
    set_bytes = FLOAT_BYTES * plan.size.items * plan.shape.width
    return Estimate(
        seconds=3 + seconds,
        memory=TORCH_BYTES + FROZEN_BYTES + weight_bytes + 2 * plan.vector_bytes,
        disk=set_bytes * len(beit3.sets) + weight_bytes,
        basis=f"{len(beit3.sets)} sets",
    )


def estimate_combine(plan: Plan) -> Estimate:
    combined = len(plan.sets) - len(plan.params[BEiT3Sets].sets) - len(plan.encoder_kinds)
    fitted = [name for name in plan.sets if plan.kind_of_set(name) == LINEAR]
    return Estimate(
        seconds=combined * plan.write_seconds + len(fitted) * plan.linear_seconds,
        memory=PROCESS_BYTES + 2 * plan.vector_bytes,
        disk=plan.vector_bytes * combined,
        basis=f"{combined} sets",
    )


def estimate_graph(plan: Plan) -> Estimate:
    """Neighbour search: three passes over the compared pairs, at the rate of matrix products."""
    graph, items, sets = plan.params[Graph], plan.size.items, len(plan.sets)
    is_small = graph.index == "auto" and items <= graph.exact_up_to
    is_exact = graph.index == "exact" or is_small
    compared = items if is_exact else 12 * items**0.5

    return Estimate(
        seconds=sets * 3 * compared * items * plan.seconds_per_product,
        memory=PROCESS_BYTES + 2 * plan.vector_bytes,
        disk=EDGE_BYTES * items * graph.k * sets,
    )


def estimate_semantic_ids(plan: Plan) -> Estimate:
    ids, items = plan.params[SemanticIds], plan.size.items
    sets = len(ids.features)
    products = 60 * items * ids.levels * ids.codes
    floats = ids.levels * (items + ids.codes * JOINED_WIDTH)
    return Estimate(
        seconds=sets * (SETUP_SECONDS + products * plan.seconds_per_product),
        memory=TORCH_BYTES + plan.vector_bytes,
        disk=sets * FLOAT_BYTES * floats,
    )


def estimate_train(plan: Plan) -> Estimate:
    return Estimate(
        seconds=2 + plan.training_seconds(RELEASED, plan.settings),
        memory=plan.training_bytes,
        disk=FLOAT_BYTES * plan.embedding_bytes,
        basis=f"at most {plan.settings.epochs} epochs",
    )


def estimate_probe(plan: Plan) -> Estimate:
    """Ranks of all probes, of each set raw and processed; closed forms of the interactions once."""
    items, users = plan.size.items, plan.size.users
    sets = len(plan.params[ProbeParams].features or plan.sets)
    questions = min(sample_size(items), max(users, items))

    ranked = PROBES_OF_QUESTIONS * questions + plan.cold_ranks(DRAWS)
    products = 4 * min(questions, items)
    once = 0.0
    if FLOAT_BYTES * items**2 <= MAX_MATRIX_GIB * 2**30:
        ranked += (len(SHARES) * len(CONTENT_RIDGES) + 1) * users
        products += 2 * len(CONTENT_RIDGES) * users
        once = len(RIDGES) * (3 * items**3 / plan.gemm + users * items / RANKED_PER_SECOND)

    widths = JOINED_WIDTH, plan.params[ProbeParams].width  # raw and processed
    ranked = len(widths) * ranked + len(POWERS) * plan.judged_users
    per_item = ranked / RANKED_PER_SECOND + products * sum(widths) / plan.gemm
    similarities = min(FLOAT_BYTES * items**2, 4e9)
    return Estimate(
        seconds=3 + once + sets * items * per_item,
        memory=TORCH_BYTES + 2 * plan.vector_bytes + 3e8 + similarities,
        disk=1e5,
        basis=f"{sets} sets",
    )


def estimate_benchmark(plan: Plan) -> Estimate:
    params, benchmark = plan.params, plan.params[Benchmark]
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
        seconds += plan.training_seconds(label.model, settings)

    # closed-form models hold item-item matrices
    memory_per_worker = plan.training_bytes
    if has_closed:
        memory_per_worker += 3 * FLOAT_BYTES * plan.size.items**2
    trainings_per_entry = 1 + benchmark.budget
    return Estimate(
        seconds=5 + trainings_per_entry * seconds / benchmark.workers,
        memory=TORCH_BYTES + benchmark.workers * memory_per_worker,
        disk=trainings * CELL_BYTES_PER_USER * plan.size.users,
        basis=f"{trainings * trainings_per_entry:,} trainings",
    )


def estimate_study(plan: Plan) -> Estimate:
    study = plan.params[Study]
    trainings = study.trainings(len(maskable_sets(plan.sets)))
    setup = 0 if study.is_empty else 10
    training_seconds = plan.training_seconds(RELEASED, plan.settings)
    return Estimate(
        seconds=setup + 1.5 * trainings * training_seconds / study.workers,
        memory=TORCH_BYTES + study.workers * plan.training_bytes,
        disk=trainings * CELL_BYTES_PER_USER * plan.size.users,
        basis=f"{trainings:,} trainings",
    )


def estimate_report(plan: Plan) -> Estimate:
    items = plan.size.items
    return Estimate(2 + 6e-4 * items, PROCESS_BYTES + 1e3 * items, 5e6, "the map")


def estimate_publish(plan: Plan) -> Estimate:
    feature_bytes = plan.vector_bytes * len(plan.params[Publish].features)
    is_trained = plan.size.pieces and plan.params[BEiT3Sets].sets
    weight_bytes = FLOAT_BYTES * plan.shape.weights if is_trained else 0
    released = feature_bytes + weight_bytes + ITEM_BYTES * plan.size.items
    return Estimate(
        seconds=3 + released / 2e8,
        memory=PROCESS_BYTES + plan.vector_bytes,
        disk=released,
        basis="copies and hashes",
    )


ESTIMATES: dict[str, Callable[[Plan], Estimate]] = {
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


def estimate_stages(plan: Plan) -> dict[str, Estimate]:
    idle: dict[str, str] = {}  # stage -> why it has nothing to do
    if not plan.params[BEiT3Sets].sets:
        idle = dict.fromkeys(("pretrain", "beit3"), "no feature set is BEiT3's")
    if not plan.size.pieces:
        idle |= dict.fromkeys(("items", "images", "pretrain"), "items have no content")

    stages = {}
    for name, estimate in ESTIMATES.items():
        if name in idle:
            stages[name] = Estimate(START_SECONDS, PROCESS_BYTES, 0, idle[name])
        else:
            cost = estimate(plan)
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
