"""Targets: feature files, weights, tokenizers and the parameters' file."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from pipeline.beit3 import checkpoints
from pipeline.beit3.tokenizer import Tokenizer, train
from pipeline.compare import feature_set
from pipeline.layout import Layout
from pipeline.vectors.matching import match
from stages import params
from tests.hostile.fuzz.tables import GOOD, JSON_VECTORS, NPY, PARAMETERS, npy_of, tensors
from tests.hostile.fuzz.target import Target, encoded, folder, written

ASINS = ["A", "B", "C", "D", "E", "F"]
TEXT = train(["a red apple", "a blue car and a red ball", "green tree"], 60)
assert TEXT is not None
SPACE = "▁".encode()


def compared(name: str, data: bytes) -> None:
    read = feature_set.read(str(written(name, data)), Layout(folder("outputs"), "shop"), ASINS)
    assert read.vectors.shape[0] == len(ASINS)
    assert np.isfinite(read.vectors).all()


def matched(name: str) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        vectors = match(written(name, data), ASINS).rows(0, len(ASINS))
        assert vectors.shape[0] == len(ASINS)
        assert np.isfinite(vectors).all()

    return one


def zipped(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def table(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def across_disks(archive: bytes) -> bytes:
    """Return a zip archive that says that its directory is on another disk: a locator of zip64 before its end."""
    at = archive.rindex(b"PK\x05\x06")
    return archive[:at] + b"PK\x06\x07" + struct.pack("<LQL", 5, 0, 7) + archive[at:]


def tokenized(data: bytes) -> None:
    tokenizer = Tokenizer(data)
    rows = tokenizer.encode(["a red apple", "", "\0 é 🎈", "x" * 500], 16)
    assert all(len(row) <= 16 and row.min() >= 0 and row.max() < tokenizer.vocab for row in rows)
    assert len(tokenizer.pieces) == tokenizer.vocab


VECTORS = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 2)
CODES = [[0, 1], [1, 0], [0, 0], [1, 1], [2, 2], None]
JSONS = [
    '{"id": "A", "v": [1, 2.5]}\n{"id": "F", "v": [3, 4]}\n',
    '{"A": [1, 2],\n "B": [3, -1e3], "x": [0, 0]}',
    '[{"asin": "A", "vector": [1]}, {"asin": "C", "vector": [NaN]}]',
]
WEIGHTS = {"a": torch.arange(6.0).reshape(3, 2), "b": torch.ones(2)}
ODD = tensors()
NO_FEATURES = [saved(value) for value, _ in ODD.values()]
NO_WEIGHTS = [saved({"model": {"b": value}}) for value, is_plain in ODD.values() if not is_plain]
CHECKPOINT = saved({"model": WEIGHTS})
SHARED = dict.fromkeys(map(str, range(100)), torch.ones(999))


@cache
def targets() -> dict[str, Target]:
    return {
        "npy": Target(lambda data: compared("f.npy", data), [npy_of(np.ones((6, 2), np.float32))], refused=NPY),
        "vectors-json": Target(matched("f.json"), encoded(JSONS), refused=encoded(JSON_VECTORS)),
        "vectors-zip": Target(matched("f.zip"), [zipped(**{a: np.ones(2) for a in ASINS}), zipped(A=np.ones((1, 3)))]),
        "pth": Target(lambda data: compared("f.pth", data), [saved(torch.ones(6, 2))], refused=NO_FEATURES),
        "checkpoint": Target(
            lambda data: checkpoints.read_checkpoint(written("c.pth", data)),
            [CHECKPOINT, across_disks(CHECKPOINT)],
            refused=[
                *NO_WEIGHTS,
                saved({1: torch.ones(9)}),
                saved(dict.fromkeys(map(str, range(100)), torch.ones(999))),
            ],
        ),
        "safetensors": Target(lambda data: checkpoints.read(written("c.safetensors", data)), [save(WEIGHTS)]),
        "compared-parquet": Target(
            lambda data: compared("f.parquet", data), [table(asin=ASINS, vector=VECTORS), table(vector=VECTORS)]
        ),
        "tokenizer": Target(tokenized, [TEXT, TEXT.replace(SPACE, b"\xdd\x96\x81")]),
        "parameters": Target(
            lambda data: params.read(written("params.yaml", data)), [GOOD.encode()], refused=encoded(PARAMETERS)
        ),
    }
