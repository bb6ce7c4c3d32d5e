"""Semantic IDs by residual k-means. I items, n with content, F feature width, L levels, K codes per level."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.collisions import number_equal_codes
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows

FIT_ROWS = 262_144  # maximum vectors from which codebooks are learned
BLOCK = 8192
EDGES = 1 << 20  # edges per read


class Coding(NamedTuple):
    """Semantic IDs of a feature set, and their reconstruction quality."""

    directed: np.ndarray  # bool [I], items with a non-zero vector; others have no ID
    codes: np.ndarray  # int32 [n, L]
    suffix: np.ndarray  # int32 [n], numbers items with equal codes from 0, in item order
    cosine: np.ndarray  # float32 [n], cosine of each vector and its reconstruction


def code_items(folder: Path, params: SemanticIds, seed: int) -> Coding:
    directed = np.concatenate([unit_rows(x)[1] for x in io.read_vectors(folder, BLOCK)])
    if (n := int(directed.sum())) < params.codes:
        raise UserError(
            f"'semantic_ids.codes': {params.codes:,} is more than the {n:,} items with content; give fewer"
        )
    drawn = np.zeros(len(directed), bool)
    drawn[
        np.random.default_rng(seed).choice(
            np.flatnonzero(directed), min(n, FIT_ROWS), replace=False
        )
    ] = True
    with threadpool_limits(1):  # the order of sums affects the last bits
        quantizer = learn_codebooks(
            np.concatenate(list(_unit_vectors(folder, drawn))), params, seed
        )
        coded = list[tuple[np.ndarray, np.ndarray]]()
        for x in _unit_vectors(folder, directed):
            packed = quantizer.compute_codes(x)
            codes = faiss.unpack_bitstrings(packed, quantizer.M, quantizer.nbits.at(0)).astype(
                np.int32
            )
            coded.append((codes, np.einsum("bf,bf->b", x, unit_rows(quantizer.decode(packed))[0])))
    codes, cosine = (np.concatenate(parts) for parts in zip(*coded, strict=True))
    return Coding(directed, codes, number_equal_codes(codes), cosine)


def learn_codebooks(x: np.ndarray, params: SemanticIds, seed: int) -> faiss.ResidualQuantizer:
    # each level clusters the residuals of the previous one
    quantizer = faiss.ResidualQuantizer(x.shape[1], params.levels, params.codes.bit_length() - 1)
    quantizer.max_beam_size = (
        1  # a wider beam reconstructs no better here, and separates neighbours
    )
    # progressive dimensions halve collisions, but start with a PCA, which needs F vectors
    kind = quantizer.Train_progressive_dim if len(x) >= x.shape[1] else quantizer.Train_default
    quantizer.train_type = (
        kind | quantizer.Skip_codebook_tables
    )  # (L K)^2 numbers, used only by beam search
    quantizer.cp.seed = seed % 2**31
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(x)
    return quantizer


def as_table(ids: pa.Table, coding: Coding) -> pa.Table:
    directed, levels = coding.directed, coding.codes.shape[1]
    codes = np.zeros((len(directed), levels), np.int32)
    codes[directed] = coding.codes
    suffix, cosine = np.zeros(len(directed), np.int32), np.zeros(len(directed), np.float32)
    suffix[directed], cosine[directed] = coding.suffix, coding.cosine
    none, kind = pa.array(~directed), schemas.semantic_ids(levels).field("codes").type
    return pa.table({
        "item_id": ids["item_id"],
        "asin": ids["asin"],
        "codes": pa.FixedSizeListArray.from_arrays(codes.reshape(-1), type=kind, mask=none),
        "suffix": pa.array(suffix, mask=~directed),
        "cosine": pa.array(cosine, mask=~directed),
        "status": np.where(directed, "coded", "no_content"),
    })  # fmt: skip


def _unit_vectors(folder: Path, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the wanted items' vectors, bool [I], scaled to length 1, in blocks that are not empty."""
    first = 0
    for x in io.read_vectors(folder, BLOCK):
        if len(own := x[wanted[first : first + len(x)]]):
            yield unit_rows(own)[0]
        first += len(x)


def judge_codes(coding: Coding, edges: Path, k: int, seed: int) -> dict[str, dict[str, float]]:
    """Return {codes, random} x {collide, neighbours}: share of collisions, and of neighbours with equal first code."""
    random = np.random.default_rng(seed).integers(k, size=coding.codes.shape, dtype=np.int32)
    first = np.full((2, len(coding.directed)), -1, np.int32)
    first[:, coding.directed] = coding.codes[:, 0], random[:, 0]
    quality = {}
    methods = zip(
        ("codes", "random"), (coding.codes, random), share_of_neighbours(first, edges), strict=True
    )
    for name, codes, share in methods:
        _, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        colliding = float((counts[group.reshape(-1)] > 1).mean())
        quality[name] = {"collide": round(colliding, 6), "neighbours": round(share, 6)}
    return quality


def share_of_neighbours(first: np.ndarray, edges: Path) -> list[float]:
    """Return the fraction of edges whose items share the first code, for each row of int32 [m, I]; -1: no code."""
    together, pairs = np.zeros(len(first), np.int64), 0
    with pq.ParquetFile(edges, pre_buffer=False) as file:
        for batch in file.iter_batches(EDGES, columns=["item_id", "neighbour_id"]):
            item, other = batch["item_id"].to_numpy(), batch["neighbour_id"].to_numpy()
            counts = (item != other) & (first[0, item] >= 0) & (first[0, other] >= 0)
            together += (first[:, item[counts]] == first[:, other[counts]]).sum(axis=1)
            pairs += int(counts.sum())
    return (together / max(pairs, 1)).tolist()
