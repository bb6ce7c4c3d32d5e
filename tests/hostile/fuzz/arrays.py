"""Targets: feature files, weights, tokenizers and params.yaml."""

import io
import struct
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save

from alignrec.commands import params
from alignrec.pipeline.beit3 import checkpoints
from alignrec.pipeline.beit3.tokenizer import Tokenizer, train_model
from alignrec.pipeline.features.compared import read_set
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.vectors.base import match_file
from tests.hostile.fuzz.target import Target, encoded, folder, table, written

GOOD = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"
BOMB = "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
PARAMETERS = [
    "",  # nothing
    "[1]\n",  # a list
    b"\xff\xfe\x00",  # not text
    "a: [",  # not YAML
    GOOD + "train: {lr: 1.0, lr: 2.0}\n",  # a repeated key
    f"{'k' * 1000}: 1\n" * 2,  # a repeated key of a thousand letters
    f"%YAML 1.{'9' * 5000}\n---\n" + GOOD,  # a version of 5,000 digits
    GOOD + "train: {epochs: !!int x}\n",  # a tag that does not fit
    GOOD + "train: !!map [1]\n",  # a mapping that is a list
    GOOD + "train: !!python/object/apply:os.system [true]\n",  # a tag of Python
    "? [a]\n: 1\n",  # a key that is a list
    GOOD + f"images: {{size: {'9' * 5000}}}\n",  # 5,000 digits
    GOOD + f"train: {'[' * 20_000}\n",  # deep nesting
    f"a0: &a0 [x]\n{BOMB}{GOOD}",  # an alias bomb
    GOOD + f"images: {{size: [{'1, ' * 100_000}]}}\n",  # 100,000 values without an alias
    "a: &a [*a]\n",  # an alias of itself
    "#" * (2 << 20),  # 2 MiB
    GOOD + f"{'k' * 1000}: 1\n",  # a long unknown key
    GOOD + f"images: {{size: {'x' * 100_000}}}\n",  # a long value
    f"datasets: [s]\nsources: {{s: {{kind: {'x' * 100_000}}}}}\n",  # a long kind
    GOOD + 'images: {size: "\\e[2J"}\n',  # an escape of the terminal
    GOOD + "publish: {version: 1.0}\n",  # a bad version
    GOOD + "publish: {version: ١.٢.٣}\n",  # a version of other digits
    GOOD + f"publish: {{version: {'9' * 999}.0.0}}\n",  # a version too long for a path
    "datasets: [s]\nsources: {s: {kind: tabular, interactions: 'http://['}}\n",  # no address
    "datasets: [s]\nsources: {s: {kind: tabular, interactions: 'http://h:99999/x'}}\n",  # no port
]


def zipped(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy(header: str | bytes, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + data


def npy_of(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


SHAPE = "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {})}}\n"
NPY = [
    b"",  # nothing
    b"a,b\n",  # text
    zipped(a=np.ones((6, 2))),  # a zip of arrays
    npy(SHAPE.format(6, 10**12)),  # terabytes that are not there
    npy(SHAPE.format(6, 10**30)),  # beyond 64 bits
    npy(SHAPE.format(-6, -2), b"\0" * 48),  # less than none
    npy_of(np.ones((6, 2))) + b"\0",  # too long
    npy_of(np.ones((0, 2), np.float32)),  # no rows
    npy_of(np.ones((6, 2, 1))),  # three dimensions
    npy_of(np.array([[None]] * 6, object), allow_pickle=True),  # objects
    npy_of(np.ones((6, 2), complex)),  # complex
    npy("__import__('os')\n"),  # a header that is no literal
    npy("(" * 9000),  # a header of brackets
    npy("{'descr': '<f4', ")[:-3],  # a header that is cut off
    npy(b"\xff\xfe\n"),  # a header that is no text
    npy(SHAPE.format(6, 2).replace("<f4", "<q9")),  # a type that is none
    npy(SHAPE.format("'a'", 2)),  # a shape that is none
    npy(SHAPE.format(6, 2), b"\0" * 48, (9, 9)),  # an unknown version
]


def tensors() -> dict[str, tuple[object, bool]]:
    """Return values to save, and whether each may be a checkpoint's tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch gives up
        quantised = torch.quantize_per_tensor(torch.ones(6, 2), 0.1, 0, torch.qint8)
        compressed = torch.eye(6).to_sparse_csr()
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    odd = {"a list": [1], "text": "x", "nothing": None, "sparse": torch.eye(6).to_sparse(), "compressed": compressed}
    odd |= {"quantised": quantised, "complex": torch.ones(6, 2, dtype=torch.complex64), "nested": nested}
    odd |= {"without data": torch.ones(6, 2, device="meta"), "terabytes": torch.ones(1).expand(6, 10**12)}
    plain = {"one number": torch.tensor(1.0), "one dimension": torch.ones(6), "no width": torch.ones(6, 0)}
    plain["three dimensions"] = torch.ones(6, 2, 1)
    return {name: (value, False) for name, value in odd.items()} | {name: (x, True) for name, x in plain.items()}


LINE = '{"id": "A", "v": [1, 2]}\n'
JSON_VECTORS = [
    LINE + '{"id": "B", "v": [1, 2, 3]}\n',
    '{"id": "A", "v": [1, [2]]}\n',
    '{"id": "A", "v": []}\n',
    '{"id": "A", "v": [1], "w": [2]}\n',
    LINE + '{"name": "x", "v": [1, 2]}\n',
    LINE * 2,
    "a,b\n1,2\n",
    "",
    "[ ]",
    '{"A": [1, 2],\n "B": [3,',
    '[{"id": "A", "v": [1, 2]}',
    "[" * 100_000,
    '{"A": [' + "9" * 5000 + "]}",
    '{"A": [1, 2]; "B": [3, 4]}',
]

ASINS = ["A", "B", "C", "D", "E", "F"]
TEXT = train_model(["a red apple", "a blue car and a red ball", "green tree"], 60)
assert TEXT is not None
SPACE = "▁".encode()


def compared(name: str, data: bytes) -> None:
    read = read_set(str(written(name, data)), Layout(folder("outputs"), "shop"), ASINS)
    assert read.vectors.shape[0] == len(ASINS)
    assert np.isfinite(read.vectors).all()


def matched(name: str) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        vectors = match_file(written(name, data), ASINS).rows(0, len(ASINS))
        assert vectors.shape[0] == len(ASINS)
        assert np.isfinite(vectors).all()

    return one


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def across_disks(archive: bytes) -> bytes:
    """Return a zip archive whose zip64 locator says that the directory is on another disk."""
    at = archive.rindex(b"PK\x05\x06")
    return archive[:at] + b"PK\x06\x07" + struct.pack("<LQL", 5, 0, 7) + archive[at:]


def tokenized(data: bytes) -> None:
    tokenizer = Tokenizer(data)
    rows = tokenizer.encode(["a red apple", "", "\0 é 🎈", "x" * 500])
    assert all(row.min(initial=0) >= 0 and row.max(initial=0) < tokenizer.vocab for row in rows)
    assert len(tokenizer.pieces) == tokenizer.vocab


VECTORS = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 2)
TABLE = table(asin=ASINS, vector=VECTORS)
# the identifiers are floats, or have no nulls: their size statistics, at which pyarrow may end the process, are wrong
NO_TABLES = [TABLE.replace(b"\x0c%\x02\x18\x04asin", start + b"\x18\x04asin") for start in (b"\x08%\x02", b"\x0c%\0")]
JSONS = [
    '{"id": "A", "v": [1, 2.5]}\n{"id": "F", "v": [3, 4]}\n',
    '{"asin": "A", "vector": [1]}\n\n{"asin": "C", "vector": [-1e3]}',
]
WEIGHTS = {"a": torch.arange(6.0).reshape(3, 2), "b": torch.ones(2)}
ODD = tensors()
NO_FEATURES = [saved(value) for value, _ in ODD.values()]
NO_WEIGHTS = [saved({"model": {"b": value}}) for value, is_plain in ODD.values() if not is_plain]
CHECKPOINT = saved({"model": WEIGHTS})


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
        "safetensors": Target(lambda data: checkpoints.read_weights(written("c.safetensors", data)), [save(WEIGHTS)]),
        "compared-parquet": Target(
            lambda data: compared("f.parquet", data), [TABLE, table(vector=VECTORS)], refused=NO_TABLES
        ),
        "tokenizer": Target(tokenized, [TEXT, TEXT.replace(SPACE, b"\xdd\x96\x81")]),
        "parameters": Target(
            lambda data: params.read(written("params.yaml", data)), [GOOD.encode()], refused=encoded(PARAMETERS)
        ),
    }
