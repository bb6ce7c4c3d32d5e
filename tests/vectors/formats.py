"""Third-party feature files: identifiers and vectors -> a file, by name of format."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

Write = Callable[[Path, Sequence[str], np.ndarray], Path]
"""folder, identifiers, float32 [N, F] -> what was written there"""


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def lines(ids: Sequence[str], vectors: np.ndarray) -> str:
    rows = zip(ids, vectors.tolist(), strict=True)
    return "".join(json.dumps({"title": "x", "parent_asin": name, "embedding": row}) + "\n" for name, row in rows)


def jsonl(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    return written(folder / "theirs.jsonl", lines(ids, vectors).encode())


def jsonl_gz(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    return written(folder / "theirs.jsonl.gz", gzip.compress(lines(ids, vectors).encode()))


def json_map(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    rows = dict(zip(ids, vectors.tolist(), strict=True))
    return written(folder / "theirs.json", json.dumps(rows, indent=1).encode())


def json_array(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    rows = [{"id": n, "vector": v} for n, v in zip(ids, vectors.tolist(), strict=True)]
    return written(folder / "theirs.json", json.dumps(rows).encode())


def m3l(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "minilm"
    path.mkdir()
    for name, vector in zip(ids, vectors.tolist(), strict=True):
        (path / f"{name}.json").write_text(json.dumps({name: vector}))
    return path


def ducho(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "avg_pool"
    path.mkdir()
    for name, vector in zip(ids, vectors, strict=True):
        np.save(path / f"{name}.npy", vector[None])  # [1, F]
    return path


def npz(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "theirs.npz"
    np.savez(path, **dict(zip(ids, vectors, strict=True)))
    return path


def parquet(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "theirs.parquet"
    pq.write_table(pa.table({"asin": ids, "v": vectors.tolist()}), path, row_group_size=7)
    return path


def parquets(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "shards"
    path.mkdir()
    for part, rows in enumerate(np.array_split(np.arange(len(ids)), 3)):
        table = pa.table({"asin": [ids[i] for i in rows], "v": vectors[rows].tolist()})
        pq.write_table(table, path / f"{part}.parquet")
    return path


def pt(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    path = folder / "theirs.pt"
    torch.save({name: torch.from_numpy(vector) for name, vector in zip(ids, vectors, strict=True)}, path)
    return path


IDENTIFIED: dict[str, Write] = {
    "JSON lines": jsonl,
    "JSON lines, gzipped": jsonl_gz,
    "JSON, id to vector": json_map,
    "JSON, an array of objects": json_array,
    "M3L's folder": m3l,
    "Ducho's folder": ducho,
    "npz": npz,
    "Parquet": parquet,
    "Parquet in a folder": parquets,
    "pt, id to tensor": pt,
}
"""formats that say which item a row is"""


def npy(folder: Path, vectors: np.ndarray) -> Path:
    np.save(folder / "image_feat.npy", vectors)
    return folder / "image_feat.npy"


def raw(folder: Path, vectors: np.ndarray) -> Path:
    path = folder / "All_Beauty.blair-base.feature"
    vectors.astype("<f4").tofile(path)
    return path


def tensor(folder: Path, vectors: np.ndarray) -> Path:
    torch.save(torch.from_numpy(vectors), folder / "theirs.pt")
    return folder / "theirs.pt"


ORDERED: dict[str, Callable[[Path, np.ndarray], Path]] = {"npy": npy, "raw float32": raw, "pt": tensor}
"""formats whose rows have an order and no identifiers"""


def mapping(folder: Path, ids: Sequence[str]) -> Path:
    """Write MMRec's mapping file, its lines not in order of rows."""
    path = folder / "i_id_mapping.csv"
    rows = [f"{name}\t{row}\n" for row, name in enumerate(ids)]
    path.write_text("asin\titemID\n" + "".join(sorted(rows)))
    return path
