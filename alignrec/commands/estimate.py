"""Estimate time, memory and disk of each stage, with constants measured on `sample` and Baby on two cores."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import pyarrow.compute as pc

from alignrec import schemas
from alignrec.commands.params import has_content
from alignrec.pipeline import io
from alignrec.pipeline.beit3.config import SIZES, BEiT3Config
from alignrec.pipeline.beit3.inference import count_flops
from alignrec.pipeline.beit3.params import VOCAB, BEiT3Sets, Pretrain
from alignrec.pipeline.benchmark.params import Benchmark, Study
from alignrec.pipeline.benchmark.plan import list_entries
from alignrec.pipeline.benchmark.settings import model_settings
from alignrec.pipeline.dataset.catalogue import measure_catalogue
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import kind_of
from alignrec.pipeline.features.names import DeclaredSets, maskable_sets
from alignrec.pipeline.features.params import Graph, SemanticIds
from alignrec.pipeline.images.params import RATE, Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.ease import Closed
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.probe.questions import sample_size
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources.amazon import SIZES as PUBLISHED
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.sample import SampleSource
from alignrec.pipeline.vectors.formats import FEATURE
from alignrec.pipeline.web.download import local_path

PROCESS, TORCH, START = (
    5e8,
    7e8,
    3.0,
)  # memory of a stage without and with torch, bytes; startup of a stage, seconds
# MiniLM and the CNN: memory including a batch, bytes; FLOPs per image and per text token; combined width
FROZEN_MEMORY, IMAGE, PIECE, WIDEST = 1.2e9, 8e8, 2.1e7, 1664
SHARES, FRUGAL = (
    {"small": 0.15, "mini": 0.35},
    0.5,
)  # fraction of the GEMM rate: BEiT3 by size, other networks
# shape with the FLOPs of size mini: CLS and one patch account for its two image tokens
MINI = BEiT3Config(
    image=1, patch=1, vocab=8000, width=384, layers=6, heads=12, ffn=1536, positions=256
)
# typical best epoch; seconds per step without a graph; graph operations per second; scores per second
BEST_EPOCH, STEP, WALK, SCORED = 40, 0.007, 1.4e10, 7e7
# embedded dataset: fraction of users and of items that the core filter keeps; interactions per generated user
SAMPLE = (2_970 / 3_600, 1_559 / 1_600, 31_692 / 3_600)
CHARACTERS, STICKER, LONGEST = (
    4,
    12,
    128,
)  # characters per token; tokens of a text in `sample`, and by default


@dataclass(frozen=True)
class Size:
    """Size of a dataset after filtering."""

    users: int
    items: int
    interactions: int
    pieces: int  # mean tokens per text; 0 if items have neither texts nor images
    origin: str

    def __str__(self) -> str:
        texts = f", {self.pieces} pieces a text" if self.pieces else ""
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions{texts}, {self.origin}"


def read_size(params: Parameters, layout: Layout) -> Size:
    source, dataset = params.source(layout.dataset), layout.dataset
    files = source.files() if isinstance(source, Downloaded) else {}
    pieces = STICKER if isinstance(source, SampleSource) else LONGEST
    if not has_content(params, dataset):
        pieces = 0
    if layout.items.exists():
        texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"]
        pieces = max(1, round((pc.mean(pc.utf8_length(texts)).as_py() or 0) / CHARACTERS))
    if (record := layout.run_record("interactions")).exists():
        done = io.read_json(record)
        users, items = done["notes"]["users"], done["notes"]["items"]
        return Size(users, items, done["rows_out"], pieces, f"counted in {record}")
    if isinstance(source, SampleSource):
        given = (source.users, source.items, source.users)
        users, items, rows = (round(n * r) for n, r in zip(given, SAMPLE, strict=True))
        return Size(users, items, rows, pieces, "as the embedded dataset's filter leaves them")
    if published := PUBLISHED.get((source.kind, getattr(source, "category", None) or "")):
        return Size(*published, pieces, "as published")
    raw = {
        role: local_path(mirrors[0])
        for role, mirrors in files.items()
        if not role.startswith(FEATURE)
    }
    paths = {role: path for role, path in raw.items() if path is not None}
    if not paths or paths != raw:
        raise UserError(
            f"{dataset}: no published size; run `alignrec download {dataset} && alignrec interactions {dataset}`, "
            "then plan the rest"
        )
    for path in paths.values():
        io.require_plain(path)
    left = measure_catalogue(source, paths)
    return Size(left.users, left.items, left.interactions, pieces, "counted in its files")


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

    @cached_property
    def sets(self) -> list[str]:
        return DeclaredSets(self.params, self.dataset).names()

    @cached_property
    def shape(self) -> BEiT3Config:
        own = self.params[Pretrain]
        vocab, codes = (
            BEiT3Config().vocab if own.tokenizer else VOCAB,
            8192 if own.vqkd else own.codes,
        )
        return replace((SIZES | {"mini": MINI})[own.size], vocab=vocab, codes=codes)

    @property
    def frozen_seconds(self) -> float:
        return self.size.items * (IMAGE + PIECE * self.size.pieces) / (FRUGAL * self.gemm)

    def beit3_seconds(self, image: bool = True, text: bool = True, chunks: int = 1) -> float:
        """Estimate a forward pass over all items, with texts split into at most `chunks` parts."""
        own, pieces = self.params[Pretrain], self.size.pieces * text
        max_tokens = self.params[BEiT3Sets].max_tokens or own.max_tokens
        # the image is encoded again with each part of the text
        parts = min(chunks, max(1, math.ceil(pieces / max_tokens)))
        operations = parts * count_flops(
            self.shape, image, min(math.ceil(pieces / parts), max_tokens)
        )
        return self.size.items * operations / (SHARES.get(own.size, FRUGAL) * self.gemm)

    def training_seconds(self, model: str, settings: Train) -> float:
        size, model_kind = self.size, MODELS[model]
        ranking = size.users * size.items / SCORED
        if issubclass(model_kind, Closed):
            return 1.5 + 3 * size.items**3 / self.gemm + ranking
        # a step propagates over the graph in both passes, and content models project all items
        step = STEP + 40 * size.interactions * settings.dim / WALK
        step += bool(model_kind.needs) * 6 * size.items * WIDEST * settings.dim / self.gemm
        batches = math.ceil(0.75 * size.interactions / settings.batch_size)
        return 1.5 + min(settings.epochs, BEST_EPOCH + settings.patience) * (
            batches * step + ranking
        )


def estimate_pretrain(plan: Plan) -> Estimate:
    own, c = plan.params[Pretrain], plan.shape
    taught = bool(own.steps and own.distill) or own.size == "mini"
    # a step costs three forward passes, or six with teachers
    passes = (
        3
        * own.steps
        * own.batch_size
        * (1 + (bool(own.distill) and own.size != "mini"))
        / plan.size.items
    )
    positions = (1 + c.patches + min(plan.size.pieces, own.max_tokens)) * math.ceil(
        own.batch_size / own.accumulate
    )
    trained = (
        plan.shape.weights + (c.vocab + c.codes) * c.width
    )  # with both heads; four floats each in AdamW
    memory = TORCH + taught * FROZEN_MEMORY + 16 * trained + 90 * positions * c.width * c.layers
    disk = (
        4 * plan.shape.weights * (1 + bool(own.init)) + 32 * trained
    )  # two checkpoints while one replaces the other
    # training, then the map of CLS from whole texts, and one pass of the teachers
    seconds = passes * plan.beit3_seconds() + plan.beit3_seconds(chunks=own.chunks)
    seconds += taught * (10 + plan.frozen_seconds)
    return Estimate(seconds, memory, disk, f"{own.steps:,} steps of {own.batch_size}")


def estimate_features(plan: Plan) -> dict[str, Estimate]:
    params, size, n, sets, product = (
        plan.params,
        plan.size,
        plan.size.items,
        len(plan.sets),
        WIDEST / plan.gemm,
    )
    graph, ids, rows, log = (
        params[Graph],
        params[SemanticIds],
        4 * n * WIDEST,
        40 * size.interactions,
    )
    is_local = params[Images].folder or params[Images].pattern
    asking = (
        n / RATE if isinstance(params.source(plan.dataset), Downloaded) and not is_local else 0.0
    )
    kinds = [kind_of(params.encoders, name) for name in params[Encode].encoders]
    networks = sum(kind not in ("tfidf", "descriptors") for kind in kinds)
    trained, chunks = params[BEiT3Sets].sets, params[BEiT3Sets].chunks
    read = [schemas.modalities_of(name) for name in trained]
    passes = sum(plan.beit3_seconds("image" in reads, "text" in reads, chunks) for reads in read)
    made = sets - len(trained) - len(kinds)
    searched = (
        n
        if graph.index == "exact" or (graph.index == "auto" and n <= graph.exact_up_to)
        else 12 * n**0.5
    )
    coded = len(ids.features) * (1.5 + 60 * n * ids.levels * ids.codes * product)
    return {
        "download": Estimate(0.0, PROCESS, plan.downloads, "as fast as the network is"),
        "interactions": Estimate(log / 4e7, PROCESS + 10 * log, log),
        "items": Estimate(n / 1e4, PROCESS, 2e3 * n, "lines of the metadata"),
        "images": Estimate(max(n / 600, asking), PROCESS, 18e3 * n, "requests to one host" if asking else "decoding"),
        "pretrain": estimate_pretrain(plan),
        "encode": Estimate(len(kinds) * START + networks * plan.frozen_seconds / 2, TORCH + FROZEN_MEMORY,
                           rows * len(kinds), f"{networks} networks"),
        "beit3": Estimate(3 + passes, TORCH + FROZEN_MEMORY + 8 * plan.shape.weights + 2 * rows,
                          4 * n * plan.shape.width * len(trained) + 8 * plan.shape.weights, f"{len(trained)} sets"),
        "combine": Estimate(3 + 1.5e-3 * n * made, PROCESS + 2 * rows, rows * made, f"{made} sets"),
        "graph": Estimate(sets * 3 * searched * n * product, PROCESS + 2 * rows, 14 * n * graph.k * sets),
        "semantic_ids": Estimate(coded, TORCH + rows, len(ids.features) * 4 * ids.levels * (n + ids.codes * WIDEST)),
    }  # fmt: skip


def estimate_evidence(plan: Plan) -> dict[str, Estimate]:
    # a cell of the benchmark stores 200 bytes per user
    params, size, n, sets, cell = (
        plan.params,
        plan.size,
        plan.size.items,
        len(plan.sets),
        200 * plan.size.users,
    )
    one, bench, study, cells = (
        params[TrainSettings].resolved(),
        params[Benchmark],
        params[Study],
        list_entries(params),
    )
    rows, vectors, alignrec = (
        4 * n * WIDEST,
        4 * (size.users + n) * one.dim,
        plan.training_seconds(RELEASED, one),
    )
    memory = PROCESS + 3 * rows + 12 * vectors + 40 * size.interactions
    closed = 12 * n**2 * any(issubclass(MODELS[e.model], Closed) for e in cells)
    runs = sum(
        plan.training_seconds(e.model, model_settings(params, e.model, e.ablation)) for e in cells
    )
    count = study.trainings(len(maskable_sets(plan.sets)))
    released = rows * len(params[Publish].features) + 4 * plan.shape.weights + 2e3 * n
    asked = sets * (
        3 + (50 * min(sample_size(n), max(size.users, n)) * n * WIDEST + 5e3 * n**2) / plan.gemm
    )
    return {
        "train": Estimate(2 + alignrec, memory, 4 * vectors, f"at most {one.epochs} epochs"),
        "probe": Estimate(asked, TORCH + 2 * rows + 3e8 + min(4.0 * n**2, 4e9), 1e5, f"{sets} sets"),
        "benchmark": Estimate(5 + (1 + bench.budget) * runs / bench.workers,
                              TORCH + bench.workers * (memory + closed), len(cells) * cell,
                              f"{len(cells) * (1 + bench.budget):,} trainings"),
        "study": Estimate(10 * (not study.is_empty) + 1.5 * count * alignrec / study.workers,
                          TORCH + study.workers * memory, count * cell, f"{count:,} trainings"),
        "report": Estimate(7 + 6e-4 * n, PROCESS + 1e3 * n, 5e6, "the map"),
        "publish": Estimate(7 + released / 2e8, PROCESS + rows, released, "copies and hashes"),
    }  # fmt: skip


def estimate_stages(plan: Plan) -> dict[str, Estimate]:
    found = estimate_features(plan) | estimate_evidence(plan)
    # stages without work still have their startup time
    if not plan.size.pieces:
        found |= dict.fromkeys(
            ("items", "images", "pretrain"), Estimate(0, PROCESS, 0, "items have no content")
        )
    elif not plan.params[BEiT3Sets].sets:
        found |= dict.fromkeys(
            ("pretrain", "beit3"), Estimate(0, PROCESS, 0, "no feature set is BEiT3's")
        )
    return {name: one._replace(seconds=one.seconds + START) for name, one in found.items()}
