"""Writers of third-party feature files: identifiers and vectors -> a file, by name of format."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

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


def saved(name: str, save: Callable[[Path, list[str], np.ndarray], object]) -> Write:
    """Return a writer of one file of identifiers with a matrix."""

    def write(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
        save(folder / name, list(ids), vectors)
        return folder / name

    return write


def delimited(separator: str, header: str | None, inner: str) -> Callable[[Path, list[str], np.ndarray], object]:
    def save(path: Path, ids: list[str], vectors: np.ndarray) -> None:
        names = header or separator.join(["", *map(str, range(vectors.shape[1]))])
        rows = (f"{i}{separator}{inner.join(map(str, v))}" for i, v in zip(ids, vectors.tolist(), strict=True))
        path.write_text("\n".join([names, *rows]) + "\n")

    return save


def wide(path: Path, ids: list[str], vectors: np.ndarray) -> None:
    pq.write_table(pa.table({"asin": ids} | {f"f{i}": column for i, column in enumerate(vectors.T)}), path)


def tensors(rows: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(v.copy()) for name, v in rows.items()}


IDENTIFIED: dict[str, Write] = {
    "npz of identifiers and a matrix": saved("a.npz", lambda to, ids, v: np.savez(to, asin=np.array(ids), vectors=v)),
    "npz, compressed": saved(
        "a.npz", lambda to, ids, v: np.savez_compressed(to, names=np.array(ids), vectors=v.copy("F"))
    ),
    "pt of identifiers and a matrix": saved(
        "a.pt", lambda to, ids, v: torch.save({"ids": ids, **tensors({"v": v})}, to)
    ),
    "pt, id to vector": saved("a.pt", lambda to, ids, v: torch.save(tensors(dict(zip(ids, v, strict=True))), to)),
    "safetensors": saved("a.safetensors", lambda to, ids, v: save_file(tensors(dict(zip(ids, v, strict=True))), to)),
    "pandas' CSV": saved("a.csv", delimited(",", None, ",")),
    "RecBole's item embeddings": saved("a.itememb", delimited("\t", "iid:token\titem_emb:float_seq", " ")),
    "wide Parquet": saved("a.parquet", wide),
    "JSON lines": jsonl,
    "JSON lines, gzipped": named("theirs.jsonl.gz", lambda rows: gzip.compress(lines(rows))),
    "JSON lines, called .json": named("theirs.json", lines),
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


def by_order(name: str, save: Callable[[Path, np.ndarray], object]) -> Callable[[Path, np.ndarray], Path]:
    def write(folder: Path, vectors: np.ndarray) -> Path:
        save(folder / name, vectors)
        return folder / name

    return write


ORDERED: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "npy": npy,
    "pt": tensor,
    "npz": by_order("a.npz", lambda to, v: np.savez(to, v)),
    "safetensors": by_order("a.safetensors", lambda to, v: save_file(tensors({"v": v}), to)),
    "CSV": by_order("a.csv", lambda to, v: np.savetxt(to, v, delimiter=",", fmt="%.9g")),
}
"""formats whose rows have an order but no identifiers"""


def mapping(folder: Path, ids: Sequence[str]) -> Path:
    """Write MMRec's mapping file, whose lines are not in order of rows."""
    rows = [f"{name}\t{row}\n" for row, name in enumerate(ids)]
    (folder / "i_id_mapping.csv").write_text("asin\titemID\n" + "".join(sorted(rows)))
    return folder / "i_id_mapping.csv"
