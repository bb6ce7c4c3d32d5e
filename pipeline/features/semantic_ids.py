"""Semantic IDs by residual k-means.

I items, n with content, F feature width, L levels, K codes per level.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.codebooks import ReleasedCodes
from alignrec.pipeline.features.collisions import number_equal_codes, number_new_items
from alignrec.pipeline.features.folder import FeatureSet, linked_catalogue
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime.run import Run

MAX_FIT_ROWS = 262_144  # vectors from which codebooks are learned
CODING_BLOCK_ROWS = 8192
EDGES_PER_READ = 1 << 20


class Coding(NamedTuple):
    """Semantic IDs of a feature set, and their reconstruction quality."""

    directed: np.ndarray  # bool [I], items with a non-zero vector; others have no ID
    codes: np.ndarray  # int32 [n, L]
    suffix: np.ndarray  # int32 [n], numbers items with equal codes from 0, in item order
    cosine: np.ndarray  # float32 [n], cosine of each vector and its reconstruction
    codebooks: np.ndarray  # float32 [L, K, F]


def code_items(
    folder: Path,
    params: SemanticIds,
    seed: int,
    max_fit_rows: int = MAX_FIT_ROWS,
    rows_per_block: int = CODING_BLOCK_ROWS,
) -> Coding:
    directed = _directed_items(folder, rows_per_block)
    n = int(directed.sum())
    if n < params.codes:
        raise UserError(
            f"'semantic_ids.codes': {params.codes:,} is more than the {n:,} items with content; "
            "give fewer"
        )

    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(directed), bool)
    drawn[rng.choice(np.flatnonzero(directed), min(n, max_fit_rows), replace=False)] = True
    with threadpool_limits(1):  # the order of sums affects the last bits
        sample = np.concatenate(list(_unit_vectors(folder, drawn, rows_per_block)))
        quantizer = learn_codebooks(sample, params, seed)

    coding = _quantize(quantizer, folder, directed, rows_per_block)
    return coding._replace(suffix=number_equal_codes(coding.codes))


def recode_items(
    folder: Path, ids: pa.Table, released: ReleasedCodes, rows_per_block: int = CODING_BLOCK_ROWS
) -> Coding:
    """Code items, schema ITEM_IDS, by the codebooks of a release.

    Items of equal vectors keep their codes, and those of equal codes their suffix.
    """
    directed = _directed_items(folder, rows_per_block)
    quantizer = restore_quantizer(released.codebooks)
    coding = _quantize(quantizer, folder, directed, rows_per_block)

    older = released.table.filter(pc.equal(released.table["status"], "coded"))
    levels = len(released.codebooks)
    older_codes = older["codes"].combine_chunks().flatten().to_numpy().reshape(-1, levels)
    position = pc.index_in(ids["asin"].filter(pa.array(directed)), older["asin"].combine_chunks())
    older_row = position.fill_null(-1).to_numpy()
    older_suffix = older["suffix"].to_numpy()
    return coding._replace(
        suffix=number_new_items(coding.codes, older_row, older_codes, older_suffix)
    )


def write_catalogue(
    run: Run, name: str, core: ReleasedCodes, released: ReleasedCodes | None
) -> None:
    """Write the codes of all items, if there are some outside the k-core, by its codebooks.

    Items of the k-core keep the codes and suffix of `core`, others those of a release, if given.
    """
    layout = run.layout
    features = FeatureSet.of(layout, name)
    if features.further() is None:
        return

    older = core.table
    if released is not None:
        is_other = pc.invert(pc.is_in(released.table["asin"], core.table["asin"].combine_chunks()))
        rows = released.table.filter(is_other).select(older.column_names)
        older = pa.concat_tables([older.cast(rows.schema), rows])
    path = layout.catalogue_codes(name)
    with linked_catalogue(features) as folder:
        ids = io.read_features(folder).select(schemas.ITEM_IDS.names)
        coding = recode_items(folder, ids, ReleasedCodes(core.codebooks, older))
    table = as_table(ids, coding)
    run.write(table, path, schemas.semantic_ids(len(core.codebooks)), features=name)


def _directed_items(folder: Path, rows_per_block: int) -> np.ndarray:
    """Return which items have a direction, bool [I]."""
    blocks = io.read_vectors(folder, rows_per_block)
    return np.concatenate([unit_rows(vectors)[1] for vectors in blocks])


def _quantize(
    quantizer: faiss.ResidualQuantizer, folder: Path, directed: np.ndarray, rows_per_block: int
) -> Coding:
    """Return a coding without suffixes."""
    levels = quantizer.M
    n_bits = quantizer.nbits.at(0)
    codes = [np.zeros((0, levels), np.int32)]
    cosines = [np.zeros(0, np.float32)]
    with threadpool_limits(1):  # the order of sums affects the last bits
        for units in _unit_vectors(folder, directed, rows_per_block):
            packed = quantizer.compute_codes(units)
            unpacked = faiss.unpack_bitstrings(packed, levels, n_bits)
            codes.append(unpacked.astype(np.int32))
            reconstructed, _ = unit_rows(quantizer.decode(packed))
            cosines.append(np.einsum("bf,bf->b", units, reconstructed))

    codebooks = faiss.vector_to_array(quantizer.codebooks)
    return Coding(
        directed,
        np.concatenate(codes),
        np.zeros(0, np.int32),
        np.concatenate(cosines),
        codebooks.reshape(levels, 1 << n_bits, quantizer.d),
    )


def learn_codebooks(x: np.ndarray, params: SemanticIds, seed: int) -> faiss.ResidualQuantizer:
    # each level clusters the residuals of the previous one
    quantizer = _greedy_quantizer(x.shape[1], params.levels, params.codes)
    # progressive dimensions halve collisions, but start with a PCA, which needs F vectors
    kind = quantizer.Train_default
    if len(x) >= x.shape[1]:
        kind = quantizer.Train_progressive_dim
    # without (L K)^2 numbers that are used only by beam search
    quantizer.train_type = kind | quantizer.Skip_codebook_tables
    quantizer.cp.seed = seed % 2**31
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(x)
    return quantizer


def restore_quantizer(codebooks: np.ndarray) -> faiss.ResidualQuantizer:
    """Return the quantizer of codebooks, float32 [L, K, F]."""
    levels, codes, width = codebooks.shape
    quantizer = _greedy_quantizer(width, levels, codes)
    quantizer.train_type |= quantizer.Skip_codebook_tables
    faiss.copy_array_to_vector(np.ascontiguousarray(codebooks).reshape(-1), quantizer.codebooks)
    quantizer.is_trained = True
    return quantizer


def _greedy_quantizer(width: int, levels: int, codes: int) -> faiss.ResidualQuantizer:
    n_bits = codes.bit_length() - 1
    quantizer = faiss.ResidualQuantizer(width, levels, n_bits)
    # a wider beam reconstructs no better here, and separates neighbours
    quantizer.max_beam_size = 1
    return quantizer


def as_table(ids: pa.Table, coding: Coding) -> pa.Table:
    directed = coding.directed
    levels = coding.codes.shape[1]
    codes = np.zeros((len(directed), levels), np.int32)
    codes[directed] = coding.codes
    suffix = np.zeros(len(directed), np.int32)
    suffix[directed] = coding.suffix
    cosine = np.zeros(len(directed), np.float32)
    cosine[directed] = coding.cosine

    kind = schemas.semantic_ids(levels).field("codes").type
    no_code = pa.array(~directed)
    lists = pa.FixedSizeListArray.from_arrays(codes.reshape(-1), type=kind, mask=no_code)
    return pa.table({
        "item_id": ids["item_id"],
        "asin": ids["asin"],
        "codes": lists,
        "suffix": pa.array(suffix, mask=~directed),
        "cosine": pa.array(cosine, mask=~directed),
        "status": np.where(directed, "coded", "no_content"),
    })  # fmt: skip


def _unit_vectors(folder: Path, chosen: np.ndarray, rows_per_block: int) -> Iterator[np.ndarray]:
    """Yield the vectors of the items `chosen`, bool [I], scaled to length 1, in nonempty blocks."""
    start = 0
    for vectors in io.read_vectors(folder, rows_per_block):
        stop = start + len(vectors)
        block = vectors[chosen[start:stop]]
        if len(block):
            units, _ = unit_rows(block)
            yield units
        start = stop


def judge_codes(coding: Coding, edges: Path, k: int, seed: int) -> dict[str, dict[str, float]]:
    """Return {codes, random} x {collide, neighbours}.

    They are the share of collisions, and of neighbours with equal first code.
    """
    random = np.random.default_rng(seed).integers(k, size=coding.codes.shape, dtype=np.int32)
    methods = {"codes": coding.codes, "random": random}
    first = np.full((len(methods), len(coding.directed)), -1, np.int32)
    for row, codes in enumerate(methods.values()):
        first[row, coding.directed] = codes[:, 0]
    shares = share_of_neighbours(first, edges)

    quality = {}
    for (name, codes), share in zip(methods.items(), shares, strict=True):
        _, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        colliding = float((counts[group.reshape(-1)] > 1).mean())
        quality[name] = {"collide": round(colliding, 6), "neighbours": round(share, 6)}
    return quality


def share_of_neighbours(first: np.ndarray, edges: Path) -> list[float]:
    """Return the fraction of edges whose items share the first code.

    For each row of int32 [m, I]; -1: no code.
    """
    together = np.zeros(len(first), np.int64)
    pairs = 0
    with pq.ParquetFile(edges, pre_buffer=False) as file:
        for batch in file.iter_batches(EDGES_PER_READ, columns=["item_id", "neighbour_id"]):
            item = batch["item_id"].to_numpy()
            neighbour = batch["neighbour_id"].to_numpy()
            both_coded = (first[0, item] >= 0) & (first[0, neighbour] >= 0)
            counts = (item != neighbour) & both_coded
            together += (first[:, item[counts]] == first[:, neighbour[counts]]).sum(axis=1)
            pairs += int(counts.sum())
    return (together / max(pairs, 1)).tolist()
