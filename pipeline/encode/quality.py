"""Quality of a feature set: truncated texts, and vectors that do not distinguish items."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.encode.folder import Facts, FeatureSet
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.ops.linalg import Block, split_blocks

KEY = "text"  # metadata key of a file, for sums of Reading.facts
MOST = 0.5  # fraction of zero vectors above which to warn
UNREAD = 0.25  # fraction of unknown tokens above which texts count as unread: vectors of the rest are mostly noise
MULTILINGUAL = (
    "encoders: {multilingual: {kind: sentence-transformers, "
    "model: sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2}}"
)
BLOCK = 4096  # rows held at a time
DERIVED = ("control", "masked", "mapped", "whitened")  # kinds that may be zero for all items
EQUAL = 1e-5  # tolerance, relative to the largest number: batch sizes change the last bits


class Shares(NamedTuple):
    """What an encoder read of the texts, over the items that have one."""

    read: float  # mean fraction of a text's tokens that was encoded and is in the vocabulary
    cut: float  # fraction of truncated texts
    unknown: float  # mean fraction of a text's tokens that is not in the vocabulary


class Counts(NamedTuple):
    """Counts of vectors."""

    items: int
    zero: int  # vectors of zeros
    equal: bool  # all vectors are the same


def text_record(rows: pa.Table) -> dict[str, dict[str, float]]:
    from alignrec.pipeline.encode.chunks import Reading  # loads torch

    known = rows.filter(rows["read"].is_valid()) if "read" in rows.column_names else rows[:0]
    return {KEY: Reading(*(known[name].to_numpy() for name in Reading._fields)).facts()} if len(known) else {}


def text_shares(files: Iterable[Path]) -> Shares | None:
    sums = Counter[str]()
    for path in files:
        sums.update(io.record(path).get(KEY, {}))
    return Shares(*(sums[name] / sums["items"] for name in Shares._fields)) if sums["items"] else None


def reads_texts(files: Iterable[Path]) -> bool:
    """Return whether an encoder's vocabulary covers the texts, if it counts tokens."""
    shares = text_shares(files)
    return shares is None or shares.unknown <= UNREAD


def note_quality(run: Run, facts: Facts, shards: Sequence[Path], file: Path | None = None) -> None:
    """Record quality in run.json and warn of defects; raises UserError if all vectors are zero."""
    name = facts.encoder
    note: dict[str, Any] = {"encoder": {"dim": io.width(shards[0].parent)} | facts.model} if facts.model else {}
    if shares := text_shares(shards):
        note |= {"text_read": round(shares.read, 4), "text_cut": round(shares.cut, 4)}
        if shares.cut:
            run.warn(f"{name}: reads {shares.read:.0%} of a text on average; {shares.cut:.0%} of texts are cut")
        if shares.unknown > UNREAD:
            why = f"{name}: cannot read {shares.unknown:.0%} of a text on average"
            run.warn(f"{why}; add an encoder of its language, such as `{MULTILINGUAL}`, and list it in encode.encoders")
    if note:
        run.note(**{name: note})
    items, zero, equal = count_vectors(_vectors_with_content(shards))
    # whitening turns equal vectors into zeros
    if items and zero == items and not facts.parts and facts.kind not in DERIVED:
        where = file or name
        raise UserError(f"{where}: all {items:,} items with content have a vector of zeros; correct or leave it out")
    if items > 1 and equal and zero < items:
        run.warn(f"{name}: all {items:,} items with content have the same vector")
    elif zero > MOST * items:
        run.warn(f"{name}: {zero:,} of {items:,} items with content have a vector of zeros")


def distinguishes(paths: Iterable[Path]) -> bool:
    counts = count_vectors(_vectors_with_content(paths))
    return counts.items < 2 or not counts.equal


def joinable_blocks(parts: Sequence[FeatureSet], distinct: Sequence[bool], image: float) -> list[Block]:
    """Return the blocks of `distinct` parts; those of texts that their encoder cannot read only if no other is left."""
    blocks = [block for block in split_blocks([part.spans for part in parts], image) if distinct[block.part]]
    reads = [reads_texts(part.shards) for part in parts]
    written = [
        np.concatenate([np.repeat([*span.reads] == ["text"], span.width) for span in part.spans]) for part in parts
    ]
    read = [block for block in blocks if reads[block.part] or not written[block.part][block.columns].all()]
    return read or blocks


def differ(vectors: np.ndarray) -> bool:
    """Return whether any two nonzero rows of [I, F] differ."""
    blocks = (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))
    return not count_vectors(block[block.any(axis=1)] for block in blocks).equal


def count_vectors(blocks: Iterable[np.ndarray]) -> Counts:
    items, zero, equal = 0, 0, True
    first: np.ndarray | None = None
    for vectors in blocks:
        if not len(vectors):
            continue
        first = vectors[0] if first is None else first
        items += len(vectors)
        zero += int((~vectors.any(axis=1)).sum())
        equal = equal and bool(np.abs(vectors - first).max() <= EQUAL * np.abs(first).max())
    return Counts(items, zero, equal)


def _vectors_with_content(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        rows = pq.read_table(path, columns=["has_image", "has_text", "vector"])
        nothing = pc.and_kleene(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))
        yield io.matrix(rows.filter(pc.invert(nothing).fill_null(True))["vector"])
