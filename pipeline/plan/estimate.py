"""Seconds, memory and disk of each stage: arithmetic on shapes and counts, scaled by what the stage took here before.

Letters: I items, U users, F width of a feature set, D of embeddings.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch

from pipeline.beit3.config import SIZES, Config
from pipeline.beit3.inference import flops
from pipeline.beit3.network import BEiT3
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS, OURS
from pipeline.experiment.plans.benchmark import entries
from pipeline.features.registry import CEILINGS, Encoders, defined, definition, kind, networks, reads_pretrained, whole
from pipeline.graph.approximate import PART
from pipeline.graph.params import Graph
from pipeline.images.params import Images
from pipeline.interactions.params import Interactions
from pipeline.models import MODELS, RELEASED
from pipeline.models.closed import Closed
from pipeline.models.params import Train
from pipeline.plan.size import Size
from pipeline.pretrain.params import Pretrain
from pipeline.probe import sampled
from pipeline.semantic_ids.params import SemanticIds
from pipeline.study.params import Study
from pipeline.train.params import Released

PROCESS, TORCH, FROZEN_MEMORY = 500e6, 700e6, 1.2e9
"""bytes of a stage that has loaded its libraries; torch too; and what MiniLM and the CNN take besides, with a batch"""
JPEG, DECODED = 18e3, 300
"""assumed bytes of a stored photo; photos a second"""
IMAGE, PIECE, WIDEST = 8e8, 2.1e7, 1664
"""operations of EfficientNet-Lite0 per image and of MiniLM per piece of text; width of both together"""
SHAPES = SIZES | {
    "mini": Config(image=1, patch=1, vocab=8000, width=384, layers=6, heads=12, ffn=1536, positions=256),
}
"""size -> shape whose operations are counted; that of mini has its two image tokens as CLS and a patch"""
BACKWARD, SHARES, FRUGAL = 3, {"small": 0.2, "mini": 0.35}, 0.5
"""operations of a training step per forward pass; share of the GEMM rate that some sizes of BEiT3 reach; all others"""
PUBLISHED, CODES = Config().vocab, 8192
"""pieces and visual codes of the published tokenizers"""
BEST_EPOCH, STEP, WALK, SCORED = 40, 0.005, 2e10, 1e8
"""epoch after which `patience` begins; seconds of a step without its graph; operations a second over a graph; scores a
second that are ranked"""
ACTIVATIONS, COPIES = 90, 4
"""bytes of pre-training per position, number of its vector, and layer; weights, gradient and AdamW's two moments"""
LEAST = 0.1
"""share of what is computed that a measured stage takes at least: a run that was resumed took less than a whole one"""


class Estimate(NamedTuple):
    """What a stage will take."""

    seconds: float
    memory: float
    """bytes at most"""
    disk: float
    """bytes that it leaves"""
    basis: str
    """what most of the time is"""


@dataclass(frozen=True)
class Plan:
    """A dataset and its parameters."""

    params: Parameters
    size: Size
    sets: list[str]
    """names of the feature sets"""
    gemm: float
    """operations of float32 products a second on this machine"""
    remote: bool = False
    """whether images come from a host"""
    downloads: float = 0.0
    """bytes of the raw files, as far as servers say"""

    @cached_property
    def shape(self) -> Config:
        """The shape of BEiT3, with the words and codes that it predicts."""
        own = self.params[Pretrain]
        codes = CODES if own.vqkd else own.codes
        return replace(SHAPES[own.size], vocab=PUBLISHED if own.tokenizer else own.vocab, codes=codes)

    @cached_property
    def weights(self) -> int:
        """Numbers of BEiT3."""
        with torch.device("meta"):
            return sum(p.numel() for p in BEiT3(self.shape).parameters())

    @property
    def width(self) -> int:
        """F of the widest set that is made here."""
        return max(self.shape.width, WIDEST)

    @property
    def tokens(self) -> int:
        """Pieces of a text that BEiT3 reads."""
        return min(self.size.pieces, self.params[Pretrain].max_tokens)

    def beit3(self, *modalities: str) -> float:
        """Return the seconds of one item's forward pass."""
        operations = flops(self.shape, "image" in modalities, self.tokens * ("text" in modalities))
        return operations / (SHARES.get(self.params[Pretrain].size, FRUGAL) * self.gemm)

    @property
    def frozen(self) -> float:
        """Seconds of MiniLM and the CNN on every item."""
        return self.size.items * (IMAGE + PIECE * self.size.pieces) / (FRUGAL * self.gemm)

    def training(self, model: str, settings: Train) -> float:
        """Return the seconds of one training: its epochs, and what ranks valid after each."""
        size, model_kind = self.size, MODELS[model]
        ranking = size.users * size.items / SCORED
        if issubclass(model_kind, Closed):
            return 3 * size.items**3 / self.gemm + ranking
        step = STEP + 40 * size.interactions * settings.dim / WALK
        step += bool(model_kind.needs) * 6 * size.items * self.width * settings.dim / self.gemm
        batches = math.ceil(0.75 * size.interactions / settings.batch_size)
        return min(settings.epochs, BEST_EPOCH + settings.patience) * (batches * step + ranking)

    @property
    def trained_bytes(self) -> float:
        """Memory of one training."""
        size, dim = self.size, self.params[Released].resolved().dim
        tables = 4 * (3 * size.items * self.width + 12 * (size.users + size.items) * dim)
        return PROCESS + tables + 40 * size.interactions


def download(plan: Plan) -> Estimate:
    """What servers say; how fast they are is not known before."""
    return Estimate(0.0, PROCESS, plan.downloads, "as fast as the network is")


def interactions(plan: Plan) -> Estimate:
    """DuckDB, which spills above its limit."""
    rows, limit = plan.size.interactions, plan.params[Interactions].memory_limit
    given = re.fullmatch(r"([\d.]+)\s*([KMGT])i?B", limit)
    most = float(given[1]) * 1024 ** (1 + "KMGT".index(given[2])) if given else math.inf
    return Estimate(1 + rows / 1e6, PROCESS + min(most, 400 * rows), 40 * rows, "k-core and split")


def items(plan: Plan) -> Estimate:
    """Lines of the metadata, of which a tenth survives."""
    return Estimate(1 + plan.size.products / 5e4, PROCESS, 2e3 * plan.size.items, f"{plan.size.products:,} lines")


def images(plan: Plan) -> Estimate:
    """Requests to one host, or decoding, whichever is slower."""
    n, rate = plan.size.items, plan.params[Images].rate
    asking = n / rate if plan.remote else 0.0
    basis = f"{rate:g} requests a second to one host" if asking > n / DECODED else "decoding"
    return Estimate(max(asking, n / DECODED), PROCESS + 64e6, JPEG * n, basis)


def pretrain(plan: Plan) -> Estimate:
    """Steps of BEiT3, and one pass of its teachers."""
    own, c = plan.params[Pretrain], plan.shape
    apart = bool(own.distill) and own.size != "mini"  # teachers have a pass of their own
    passes = own.steps * own.batch_size * BACKWARD * (1 + apart)
    taught = bool(own.steps and own.distill) or own.size == "mini"
    seconds = passes * plan.beit3("image", "text") + taught * plan.frozen
    positions = 1 + c.patches + plan.tokens
    active = ACTIVATIONS * positions * c.width * c.layers * math.ceil(own.batch_size / own.accumulate)
    trained = plan.weights + (c.vocab + c.codes) * c.width  # with both heads
    memory = TORCH + taught * FROZEN_MEMORY + 4 * trained * COPIES + active
    kept = plan.weights * (1 + bool(own.init))  # as they began too
    disk = 4 * (kept + 2 * COPIES * trained)  # a new checkpoint is written before the old one goes
    return Estimate(seconds, memory, disk, f"{own.steps:,} steps of {own.batch_size}")


def encode(plan: Plan) -> Estimate:
    """Every network on every item."""
    n, encoders = plan.size.items, plan.params.encoders
    named = [name for name in plan.params[Encode].encoders if defined(encoders, name)]
    read = [modalities for name in named if (modalities := shown(encoders, name))]
    kinds = [kind(encoders, name) for name in networks(encoders, whole(encoders, named))]
    others = sum(not one.startswith(OURS) and one != "tfidf" for one in kinds)
    frozen = others + len(read) * (plan.params[Pretrain].size == "mini")  # whose image tokens the CNN gives
    seconds = n * sum(plan.beit3(*modalities) for modalities in read) + frozen * plan.frozen
    disk = 4 * n * (plan.shape.width * len(plan.sets) + plan.width * others)
    memory = TORCH + bool(others) * FROZEN_MEMORY + 8 * plan.weights * bool(read) + 8 * n * plan.width
    return Estimate(5 + seconds, memory, disk, f"{len(read)} sets of BEiT3, {others} other networks")


def shown(encoders: Encoders, name: str) -> tuple[str, ...]:
    """Return the modalities that BEiT3 reads for a feature set; none where it reads nothing for it."""
    own = definition(encoders, name)
    of = str(own.get("of")) if own.get("kind") == "masked" else name
    if of not in ENCODERS or not ENCODERS[of].pretrained:
        return ()
    return tuple(modality for modality in ENCODERS[of].reads if modality != own.get("modality"))


def graph(plan: Plan) -> Estimate:
    """Nearest neighbours of every set."""
    n, params = plan.size.items, plan.params[Graph]
    exact = params.index == "exact" or (params.index == "auto" and n <= params.exact_up_to)
    seconds = len(plan.sets) * 6 * (n * n if exact else 12 * n**1.5) * plan.width / plan.gemm
    memory = PROCESS + 8 * (n if exact else PART) * plan.width
    return Estimate(1 + seconds, memory, 14 * n * params.k * len(plan.sets), "exact" if exact else "ivf")


def semantic_ids(plan: Plan) -> Estimate:
    """Codebooks of every method on every set that is coded."""
    n, own = plan.size.items, plan.params[SemanticIds]
    books = len(own.features) * len(own.methods)
    seconds = books * 60 * min(n, own.fit_rows) * own.levels * own.codes * plan.width / plan.gemm
    disk = books * 4 * own.levels * (n + own.codes * plan.width)
    return Estimate(3 * books + seconds, TORCH + 4 * n * plan.width, disk, f"{books} codebooks")


def train(plan: Plan) -> Estimate:
    """The recommender that is released."""
    settings = plan.params[Released].resolved()
    disk = 16 * (plan.size.users + plan.size.items) * settings.dim
    epochs = f"{min(settings.epochs, BEST_EPOCH + settings.patience)} epochs"
    return Estimate(plan.training(RELEASED, settings), plan.trained_bytes, disk, epochs)


def probe(plan: Plan) -> Estimate:
    """Questions of every set, raw and processed, and a linear recommender in closed form."""
    n, sets = plan.size.items, len(plan.sets)
    asked = min(sampled.most(n), max(plan.size.users, n))
    seconds = sets * (50 * asked * n * plan.width + 5e3 * n**2) / plan.gemm
    return Estimate(seconds, TORCH + 8 * n * plan.width + 3e8 + min(4.0 * n**2, 4e9), 1e5, f"{sets} sets")


def benchmark(plan: Plan) -> Estimate:
    """Models x feature sets x seeds, and what a budget tries before, on each split."""
    own, found = plan.params[Benchmark], entries(plan.params)
    times = own.splits * (1 + own.budget)
    each = [plan.training(e.model, model_settings(plan.params, e.model, e.ablation)) for e in found]
    closed = any(issubclass(MODELS[e.model], Closed) for e in found)
    memory = TORCH + own.workers * (plan.trained_bytes + closed * 12 * plan.size.items**2)
    said = f"{len(found) * times:,} trainings"
    return Estimate(times * sum(each) / own.workers, memory, len(found) * 200.0 * plan.size.users, said)


def study(plan: Plan) -> Estimate:
    """Trainings of AlignRec, and encoders of the variants."""
    own, one = plan.params[Study], plan.params[Released].resolved()
    maskable = [name for name in plan.sets if f"{name}-image-masked" in plan.sets and name not in CEILINGS]
    wrong = [len(part) for part in (own.wrong.models, own.wrong.features, own.wrong.what, own.wrong.ratios)]
    variants = (len(own.variants) + bool(own.variants)) * own.encoder_seeds
    together = len(own.joint.rates) * own.joint.seeds  # each epoch encodes every item, with gradient
    trainings = (
        len(maskable) * 2 * len({*own.mask.ratios} - {0.0}) * own.mask.seeds
        + math.prod(wrong) * own.wrong.seeds
        + (len(own.geometry.without) + bool(own.geometry.without)) * own.geometry.seeds
        + together
        + 2 * bool(together) * own.joint.seeds
        + own.seeds * (2 * variants + sum(len(own.settings(sweep)) for sweep in own.sweeps))
    )
    seconds = trainings * plan.training(RELEASED, one) / own.workers
    if plan.size.pieces and reads_pretrained(plan.params.encoders, plan.params[Encode].encoders):
        seconds += variants * (pretrain(plan).seconds + encode(plan).seconds)
        seconds += together * one.epochs * plan.size.items * BACKWARD * plan.beit3("image", "text") / own.workers
    disk = trainings * 200.0 * plan.size.users + variants * 4 * plan.weights
    memory = TORCH + own.workers * plan.trained_bytes
    return Estimate(seconds, memory, disk, f"{trainings:,} trainings, {variants} encoders")


def report(plan: Plan) -> Estimate:
    return Estimate(4 + 6e-4 * plan.size.items, PROCESS + 1e3 * plan.size.items, 5e6, "the map")


def publish(plan: Plan) -> Estimate:
    """Copies of what is released, hashed twice."""
    n = plan.size.items
    disk = 4 * n * plan.width * len(plan.params[Encode].encoders) + 4 * plan.weights + 2e3 * n
    return Estimate(1 + disk / 2e8, PROCESS + 4 * n * plan.width, disk, "copies and hashes")


STAGES: Mapping[str, Callable[[Plan], Estimate]] = {
    stage.__name__: stage
    for stage in (
        *(download, interactions, items, images, pretrain, encode, graph, semantic_ids, train, probe),
        *(benchmark, study, report, publish),
    )
}
UNSCALED = {"download", "images"}
"""stages whose time is the network's"""


def stages(plan: Plan, ran: Mapping[str, tuple[Plan, float]]) -> dict[str, Estimate]:
    """Return stage -> what it takes.

    Args:
        ran: stage -> a plan of a run that this machine has made, and the seconds that the stage took in it.
    """
    estimates = {}
    for name, of in STAGES.items():
        estimate = of(plan)
        if name in {"items", "images", "pretrain"} and not plan.size.pieces:
            estimate = Estimate(0, PROCESS, 0, "items have no content")
        elif name == "pretrain" and not reads_pretrained(plan.params.encoders, plan.params[Encode].encoders):
            estimate = Estimate(0, PROCESS, 0, "no feature set is BEiT3's")
        elif name in ran and name not in UNSCALED:
            then, seconds = ran[name]
            share = max(LEAST, seconds / max(of(then).seconds, 1e-3))
            estimate = estimate._replace(seconds=estimate.seconds * share)
        estimates[name] = estimate
    return estimates
