"""Encode items with tiny sentence-transformers networks, compared with `SentenceTransformer.encode`.

Tiny networks expose the overhead around them. Most texts are truncated, by alignrec between words; for images with
texts both give equal vectors.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from alignrec.pipeline.encoders.registry import Encoder, find_network
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_rgb
from benchmarks import Measurement, _turns
from benchmarks._turns import Turn, Way, timed

# case -> network in tests/networks.py, items, maximum characters of a text
CASES = {"texts": ("sentences", 4096, 400), "images with texts": ("multimodal", 512, 60)}
PASS, WORKERS, TOKENS = 64, 2, 64
READ = 24  # maximum tokens in the first case; texts of the second are not truncated
SHORTEST = 10  # minimum characters of a text
OURS, THEIRS = "ours", "sentence-transformers"


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
        what=f"{CASES['texts'][1]} texts and {CASES['images with texts'][1]} images with texts in batches of {PASS}; "
        "the reference: SentenceTransformer.encode",
        details={
            "ratio_by_case": {
                case: mine.times_as_fast(other)._asdict() for case, (mine, other) in pairs.items()
            },
            "largest_difference": {
                case: float(np.abs(a.last - b.last).max()) for case, (a, b) in pairs.items()
            },
        },
    )


# --- inputs, generated in each process from the same seeds


@cache
def _shared(name: str) -> Any:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    return importlib.import_module(name)


@cache
def _items(case: str) -> tuple[list[str], list[bytes | None]]:
    """Return texts of various lengths and, depending on the case, JPEG images."""
    _, count, longest = CASES[case]
    rng = np.random.default_rng(0)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz    "])
    texts = ["a" + "".join(rng.choice(letters, n)) for n in rng.integers(SHORTEST, longest, count)]
    colours = [
        _shared("pictures").plain(colour, (320, 256)) for colour in ("red", "green", "blue", "grey")
    ]
    return texts, [colours[i % 4] if case != "texts" else None for i in range(count)]


def _model(folder: str, case: str) -> str:
    """Return the folder of the case's network, which is built on first use."""
    base, name = Path(folder) / case.replace(" ", "-"), CASES[case][0]
    return str(base / "model" if base.exists() else getattr(_shared("networks"), name)(base))


# --- ways


@cache
def _encoder(folder: str, case: str) -> Encoder:
    given = {
        "kind": "sentence-transformers",
        "model": _model(folder, case),
        "max_tokens": TOKENS,
        "chunks": 1,
    }
    return find_network({"net": given}, "net", Path(folder)).load()


def _our_turn(folder: str, case: str) -> Turn[np.ndarray]:
    encoder, (texts, images) = _encoder(folder, case), _items(case)
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
    if case == "texts":
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
    encoder, (texts, _) = _encoder(folder, case), _items(case)
    ordered = sorted(texts, key=len)
    ready = [
        encoder.prepare(None, ordered[start : start + PASS]) for start in range(0, len(texts), PASS)
    ]
    rounds = [
        timed(lambda: [encoder.encode(batch) for batch in ready]) for _ in range(_turns.ROUNDS)
    ]
    return len(texts) / min(turn.wall for turn in rounds)
