"""Writers of third-party feature files: identifiers and vectors -> a file, by name of format."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

Write = Callable[[Path, Sequence[str], np.ndarray], Path]
"""(folder, identifiers, float32 [N, F]) -> path written"""


def named(name: str, data: Callable[[dict[str, list[float]]], object]) -> Write:
    """Return a writer of a file with bytes, or JSON, made of identifier -> vector."""

    def write(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
        made = data(dict(zip(ids, vectors.tolist(), strict=True)))
        (folder / name).write_bytes(made if isinstance(made, bytes) else json.dumps(made, indent=1).encode())
        return folder / name

    return write


def lines(rows: dict[str, list[float]]) -> bytes:
    records = ({"title": "x", "parent_asin": name, "embedding": vector} for name, vector in rows.items())
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def foldered(name: str, save: Callable[[Path, str, np.ndarray], None]) -> Write:
    """Return a writer of a folder with a file per item."""

    def write(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
        (folder / name).mkdir()
        for item, vector in zip(ids, vectors, strict=True):
            save(folder / name, item, vector)
        return folder / name

    return write


jsonl = named("theirs.jsonl", lines)
json_map = named("theirs.json", lambda rows: rows)
m3l = foldered("minilm", lambda to, i, v: (to / f"{i}.json").write_text(json.dumps({i: v.tolist()})) and None)
ducho = foldered("avg_pool", lambda to, i, v: np.save(to / f"{i}.npy", v[None]))  # [1, F]


def npz(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    np.savez(folder / "theirs.npz", **dict(zip(ids, vectors, strict=True)))
    return folder / "theirs.npz"


def parquet(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    pq.write_table(pa.table({"asin": ids, "v": vectors.tolist()}), folder / "theirs.parquet", row_group_size=7)
    return folder / "theirs.parquet"


def parquets(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "shards"
    path.mkdir()
    for part, rows in enumerate(np.array_split(np.arange(len(ids)), 3)):
        parquet(path, [ids[i] for i in rows], vectors[rows]).rename(path / f"{part}.parquet")
    return path


IDENTIFIED: dict[str, Write] = {
    "JSON lines": jsonl,
    "JSON lines, gzipped": named("theirs.jsonl.gz", lambda rows: gzip.compress(lines(rows))),
    "JSON, id to vector": json_map,
    "JSON, an array of objects": named("theirs.json", lambda rows: [{"id": i, "v": v} for i, v in rows.items()]),
    "M3L's folder": m3l,
    "Ducho's folder": ducho,
    "npz": npz,
    "Parquet": parquet,
    "Parquet in a folder": parquets,
}
"""formats whose rows have identifiers"""


def npy(folder: Path, vectors: np.ndarray) -> Path:
    np.save(folder / "image_feat.npy", vectors)
    return folder / "image_feat.npy"


def tensor(folder: Path, vectors: np.ndarray) -> Path:
    torch.save(torch.from_numpy(vectors), folder / "theirs.pt")
    return folder / "theirs.pt"


ORDERED: dict[str, Callable[[Path, np.ndarray], Path]] = {"npy": npy, "pt": tensor}
"""formats whose rows have an order but no identifiers"""


def mapping(folder: Path, ids: Sequence[str]) -> Path:
    """Write MMRec's mapping file, whose lines are not in order of rows."""
    rows = [f"{name}\t{row}\n" for row, name in enumerate(ids)]
    (folder / "i_id_mapping.csv").write_text("asin\titemID\n" + "".join(sorted(rows)))
    return folder / "i_id_mapping.csv"
