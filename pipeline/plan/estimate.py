"""Seconds, memory and disk of each stage, from shapes and counts, at the rates of this machine.

What nobody can know before is assumed, and the command says so.

Letters: I items, U users, F width of a feature set, D of embeddings.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

import torch

from pipeline.beit3 import vqkd
from pipeline.beit3.config import Config
from pipeline.beit3.network import BEiT3
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.encode.registry import OURS
from pipeline.evaluation.statistics import RESAMPLES
from pipeline.experiment.plans.benchmark import entries
from pipeline.features.chosen import ChosenParams
from pipeline.features.registry import CHOSEN, feature_sets, kind, networks, reads_pretrained, settings, whole
from pipeline.graph.approximate import PART
from pipeline.graph.params import Graph
from pipeline.images.params import Images
from pipeline.interactions.params import Interactions
from pipeline.interactions.split import SCORES
from pipeline.models import MODELS, RELEASED
from pipeline.models.closed import Closed
from pipeline.models.params import Train
from pipeline.plan import operations
from pipeline.plan.operations import Items
from pipeline.plan.rates import EACH, ITEMS, USERS, WIDTH, Rates
from pipeline.plan.size import Size
from pipeline.pretrain.params import Pretrain
from pipeline.probe import sampled
from pipeline.probe.linear_cf import GIB as CLOSED_GIB
from pipeline.semantic_ids.params import SemanticIds
from pipeline.sources.base import Downloaded
from pipeline.study.params import Study
from pipeline.train.params import Released

PROCESS, TORCH, FROZEN_MEMORY = 500e6, 700e6, 1.2e9
"""bytes of a stage that has loaded its libraries; torch too; and what MiniLM and the CNN take beside, with a batch"""
JPEG = 18e3
"""assumed bytes of a stored photo; stickers take 4.5e3"""
IMAGE, PIECE = 8e8, 2.1e7
"""operations of EfficientNet-Lite0 for an image, and of MiniLM for a piece of text"""
FRUGAL = 0.3
"""share of the rate of large matrix products that these two reach"""
PUBLISHED = Config().vocab
"""pieces of the published tokenizer"""
BEST_EPOCH = 40
"""assumed; a training ends `patience` epochs later"""
ACTIVATIONS = 90
"""bytes of pre-training a position, number of its vector and layer: Baby's rehearsal took 2.1 GB in batches of 8"""
COPIES = 4
"""of the weights in a step: they, their gradient, AdamW's two moments"""
PROBED, READ = 3, 4
"""probes that ask questions, of each set raw and in three forms"""
MATRICES = 3
"""of items x items that a recommender in closed form holds"""
DOUBLE, SINGLE = 8, 4
"""bytes of a number"""


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
    """The dataset, the parameters and the machine."""

    params: Parameters
    dataset: str
    size: Size
    rates: Rates
    downloads: float
    """bytes of the raw files, as far as servers say"""

    @cached_property
    def shape(self) -> Config:
        """The shape of BEiT3, with the words and codes that it predicts."""
        own = self.params[Pretrain]
        codes = operations.CODES if own.vqkd else own.codes
        return replace(operations.SHAPES[own.size], vocab=PUBLISHED if own.tokenizer else own.vocab, codes=codes)

    @cached_property
    def weights(self) -> int:
        """Numbers of BEiT3."""
        with torch.device("meta"):
            return sum(p.numel() for p in BEiT3(self.shape).parameters())

    @cached_property
    def sets(self) -> list[str]:
        """Names of the feature sets."""
        return feature_sets(self.params, self.dataset)

    @property
    def networks(self) -> operations.Networks:
        """Shapes of the two networks."""
        return operations.Networks(self.shape, vqkd.Config())

    @property
    def width(self) -> int:
        """F of the widest set that is made here, at least MiniLM's and the CNN's together."""
        return max(self.shape.width, 1664)

    @cached_property
    def items(self) -> Items:
        """Items with an image, all with texts of the same length."""
        items = Items.full(self.size.items)
        return Items(items.image, items.tokens.clip(max=min(self.size.pieces, self.params[Pretrain].max_tokens)))

    @property
    def pretrains(self) -> bool:
        """Whether a feature set comes from BEiT3."""
        return bool(self.size.pieces) and reads_pretrained(self.params.encoders, self.params[Encode].encoders)

    @property
    def frozen(self) -> float:
        """Seconds of MiniLM and the CNN on every item."""
        return self.size.items * (IMAGE + PIECE * self.size.pieces) / (FRUGAL * self.rates.gemm["float32"])

    def training(self, model: str, settings: Train) -> float:
        """Return the seconds of one training: its start, its epochs, and what ranks valid after each."""
        return sum(self._training(model, settings))

    def _training(self, model: str, settings: Train) -> tuple[float, float]:
        timed = self.rates.models.get(model, self.rates.models[RELEASED])
        size, kind = self.size, MODELS[model]
        share = size.interactions / (EACH * USERS[1])
        ranking = min(size.users * size.items, SCORES) / self.rates.scores
        if issubclass(kind, Closed):
            return 3 * size.items**3 / self.rates.gemm["float32"], ranking
        power = math.log(max(timed.build[1], 1e-4) / max(timed.build[0], 1e-4)) / math.log(ITEMS[1] / ITEMS[0])
        build = timed.build[1] * (size.items / ITEMS[1]) ** min(max(power, 0.0), 2.0)
        if not timed.step[1]:
            return build, ranking
        slope = max(0.0, timed.step[1] - timed.step[0]) / (1 - USERS[0] / USERS[1])
        step = max(timed.step[1] + slope * (share - 1), timed.step[0])
        if "features" in kind.needs:  # they were timed on narrow ones
            wider = max(0, self.width - WIDTH)
            step += 3 * 2 * size.items * wider * settings.dim / self.rates.gemm["float32"]
        epochs = min(settings.epochs, BEST_EPOCH + settings.patience)
        batches = math.ceil(0.75 * size.interactions / settings.batch_size)
        return build, epochs * (batches * step + ranking)

    @property
    def trained_bytes(self) -> float:
        """Memory of one training."""
        size, dim = self.size, self.params[Released].resolved().dim
        return (
            PROCESS
            + SINGLE * (3 * size.items * self.width + 12 * (size.users + size.items) * dim)
            + (40 * size.interactions)
        )


def download(plan: Plan) -> Estimate:
    """What servers say; how fast they are, nobody knows before."""
    return Estimate(0.0, PROCESS, plan.downloads, "as fast as the network is")


def interactions(plan: Plan) -> Estimate:
    """DuckDB, which spills above its limit."""
    rows, given = (
        plan.size.interactions,
        re.fullmatch(r"([\d.]+)\s*([KMGT])i?B", plan.params[Interactions].memory_limit),
    )
    most = float(given[1]) * 1024 ** (1 + "KMGT".index(given[2])) if given else math.inf
    return Estimate(1 + rows / 1e6, PROCESS + min(most, 400 * rows), 40 * rows, "k-core and split")


def items(plan: Plan) -> Estimate:
    """Lines of the metadata, of which a tenth survives."""
    return Estimate(1 + plan.size.products / 5e4, PROCESS, 2e3 * plan.size.items, f"{plan.size.products:,} lines")


def images(plan: Plan) -> Estimate:
    """Requests to one host, or decoding, whichever is slower."""
    n, params = plan.size.items, plan.params[Images]
    remote = isinstance(plan.params.source(plan.dataset), Downloaded) and not (params.folder or params.pattern)
    decoding = n / plan.rates.jpegs
    asking = n / params.rate if remote else 0.0
    basis = f"{params.rate:g} requests a second to one host" if asking > decoding else "decoding"
    return Estimate(max(asking, decoding), PROCESS + 64e6, JPEG * n, basis)


def pretrain(plan: Plan) -> Estimate:
    """Steps of BEiT3, at the rate of a training step of this size."""
    own, c = plan.params[Pretrain], plan.shape
    flop = sum(operations.pretrain(plan.networks, plan.params, plan.items).values()) if own.steps else 0.0
    seconds = flop / plan.rates.trained[own.size]
    taught = bool(own.steps and own.distill) or own.size == "mini"
    seconds += taught * plan.frozen
    positions = 1 + c.patches + int(plan.items.tokens.max(initial=0))
    active = ACTIVATIONS * positions * c.width * c.layers * math.ceil(own.batch_size / own.accumulate)
    trained = plan.weights + (c.vocab + c.codes) * c.width  # with both heads
    memory = TORCH + taught * FROZEN_MEMORY + SINGLE * trained * COPIES + active
    kept = plan.weights * (1 + bool(own.init))  # as they began too
    disk = SINGLE * (kept + 2 * COPIES * trained)  # a new checkpoint is written before the old one goes
    return Estimate(seconds, memory, disk, f"{flop / 1e15:.2g} PFLOP")


def encode(plan: Plan) -> Estimate:
    """Every network on every item, and what is chosen on valid."""
    n, encoders = plan.size.items, plan.params.encoders
    flop = sum(operations.encode(plan.networks, plan.params, plan.items).values()) if plan.pretrains else 0.0
    kinds = [kind(encoders, name) for name in networks(encoders, whole(encoders, plan.params[Encode].encoders))]
    others = sum(not one.startswith(OURS) and one != "tfidf" for one in kinds)
    chosen = [name for name in plan.params[Encode].encoders if kind(encoders, name) == CHOSEN]
    seconds = flop / plan.rates.encoded.get(plan.params[Pretrain].size, math.inf) + others * plan.frozen
    seconds += sum(cast(ChosenParams, settings(encoders, name)).seconds for name in chosen)
    disk = SINGLE * n * (plan.shape.width * len(plan.sets) + plan.width * others)
    basis = f"{flop / 1e15:.2g} PFLOP of BEiT3, {others} other networks"
    memory = TORCH + bool(others) * FROZEN_MEMORY + 2 * SINGLE * plan.weights * plan.pretrains
    return Estimate(5 + seconds, memory + 2 * SINGLE * n * plan.width, disk, basis)


def graph(plan: Plan) -> Estimate:
    """Nearest neighbours of every set."""
    n, params, rate = plan.size.items, plan.params[Graph], plan.rates.gemm["float32"]
    exact = params.index == "exact" or (params.index == "auto" and n <= params.exact_up_to)
    compared = n * n if exact else 12 * n**1.5
    seconds = len(plan.sets) * 3 * 2 * compared * plan.width / rate
    memory = PROCESS + 2 * SINGLE * (n if exact else PART) * plan.width
    return Estimate(1 + seconds, memory, 14 * n * params.k * len(plan.sets), "exact" * exact or "ivf")


def semantic_ids(plan: Plan) -> Estimate:
    """Codebooks of every method on every set that is coded."""
    n, own = plan.size.items, plan.params[SemanticIds]
    books = len(own.features) * len(own.methods)
    flop = books * 30 * 2 * min(n, own.fit_rows) * own.levels * own.codes * plan.width
    disk = books * (4 * n * own.levels + SINGLE * own.levels * own.codes * plan.width)
    return Estimate(3 * books + flop / plan.rates.gemm["float32"], TORCH + SINGLE * n * plan.width, disk, "codebooks")


def train(plan: Plan) -> Estimate:
    """The recommender that is released."""
    settings = plan.params[Released].resolved()
    disk = 4 * SINGLE * (plan.size.users + plan.size.items) * settings.dim
    epochs = f"{min(settings.epochs, BEST_EPOCH + settings.patience)} epochs"
    return Estimate(plan.training(RELEASED, settings), plan.trained_bytes, disk, epochs)


def probe(plan: Plan) -> Estimate:
    """Questions of every set, raw and processed, and a linear recommender in closed form where it fits."""
    n, sets = plan.size.items, len(plan.sets)
    asked = PROBED * min(sampled.most(n), max(plan.size.users, n))
    seconds = 2 * sets * READ * asked * n * plan.width / plan.rates.double + 2e-9 * RESAMPLES * n * sets
    if 4 * n**2 <= CLOSED_GIB * 2**30:
        seconds += 6 * n**3 / plan.rates.gemm["float32"] + 2 * sets * 10 * 2 * n**2 * 128 / plan.rates.gemm["float32"]
    memory = TORCH + DOUBLE * n * plan.width + 3e8 + min(4.0 * n**2, CLOSED_GIB * 2**30)
    return Estimate(seconds, memory, 1e5, f"{sets} sets, raw and processed")


def benchmark(plan: Plan) -> Estimate:
    """Models x feature sets x seeds, and what a budget tries before."""
    own, found = plan.params[Benchmark], entries(plan.params)
    tried = 1 + own.budget
    alone = {(e.model, e.ablation): model_settings(plan.params, e.model, e.ablation) for e in found}
    seconds = tried * sum(plan.training(e.model, alone[e.model, e.ablation]) for e in found) / own.workers
    closed = any(issubclass(MODELS[e.model], Closed) for e in found)
    memory = TORCH + own.workers * (plan.trained_bytes + closed * MATRICES * SINGLE * plan.size.items**2)
    return Estimate(seconds, memory, len(found) * 200.0 * plan.size.users, f"{len(found) * tried:,} trainings")


def study(plan: Plan) -> Estimate:
    """Trainings of AlignRec, and encoders of the variants."""
    own, one = plan.params[Study], plan.params[Released].resolved()
    maskable = [name for name in plan.sets if f"{name}-image-masked" in plan.sets]
    hidden = len(maskable) * 2 * len({*own.mask.ratios} - {0.0}) * own.mask.seeds
    wrong = [len(part) for part in (own.wrong.models, own.wrong.features, own.wrong.what, own.wrong.ratios)]
    without = (len(own.geometry.without) + bool(own.geometry.without)) * own.geometry.seeds
    variants = (len(own.variants) + bool(own.variants)) * own.encoder_seeds
    swept = sum(len(own.settings(sweep)) for sweep in own.sweeps)
    trainings = hidden + math.prod(wrong) * own.wrong.seeds + without
    together = len(own.joint.rates) * own.joint.seeds  # each epoch encodes every item, with gradient
    trainings += together + 2 * bool(together) * own.joint.seeds
    trainings += own.seeds * (variants * len(own.variant_features) + swept)
    seconds = trainings * plan.training(RELEASED, one) / own.workers
    if plan.pretrains:
        seconds += variants * (pretrain(plan).seconds + encode(plan).seconds)
        seconds += together * one.epochs * plan.size.items * pretrain(plan).seconds / _seen(plan) / own.workers
    disk = trainings * 200.0 * plan.size.users + variants * SINGLE * plan.weights
    return Estimate(
        seconds, TORCH + own.workers * plan.trained_bytes, disk, f"{trainings:,} trainings, {variants} encoders"
    )


def _seen(plan: Plan) -> int:
    """Return how many items pre-training reads, those that come again counted again; at least one."""
    return max(1, plan.params[Pretrain].steps * plan.params[Pretrain].batch_size)


def report(plan: Plan) -> Estimate:
    """The page, and the map of the items."""
    return Estimate(4 + 6e-4 * plan.size.items, PROCESS + 1e3 * plan.size.items, 5e6, "the map")


def publish(plan: Plan) -> Estimate:
    """Copies of what is released, hashed twice."""
    n, sets = plan.size.items, len(plan.params[Encode].encoders)
    disk = SINGLE * n * plan.width * sets + SINGLE * plan.weights * plan.pretrains + 2e3 * n
    return Estimate(1 + disk / 2e8, PROCESS + SINGLE * n * plan.width, disk, "copies and hashes")


STAGES: Mapping[str, Callable[[Plan], Estimate]] = {
    stage.__name__: stage
    for stage in (
        *(download, interactions, items, images, pretrain, encode, graph, semantic_ids, train, probe),
        *(benchmark, study, report, publish),
    )
}
CONTENT = (items, images, pretrain)
"""those that have next to nothing to do where items have neither text nor image"""


def stages(plan: Plan) -> dict[str, Estimate]:
    """Return stage -> what it takes."""
    idle = Estimate(0, PROCESS, 0, "items have no content")
    return {name: idle if of in CONTENT and not plan.size.pieces else of(plan) for name, of in STAGES.items()}
