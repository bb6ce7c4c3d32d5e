"""Quality of a feature set by itself: which texts were read, which vectors are zero or equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import MULTILINGUAL
from alignrec.pipeline.features.folder import Facts, FeatureSet
from alignrec.pipeline.io.errors import UserError

READ = "text"  # key in the metadata of a Parquet file under which it has `Reading.facts`
# kinds whose vectors may all be zero: whitening turns equal vectors into zeros
MAY_BE_ZERO = ("control", "masked", "whitened")
WARN_ABOVE_ZEROS = 0.5  # fraction of zero vectors
MIN_UNREAD = 0.05  # fraction of unread texts from which the stage warns
# tolerance for equal vectors, relative to the largest number: batch sizes change the last bits
EQUAL_WITHIN = 1e-5
COUNTING_BLOCK_ROWS = 4096


class Shares(NamedTuple):
    """How much of the texts an encoder read, over the items that have one."""

    read: float  # mean fraction of a text's tokens that was encoded and is in the vocabulary
    cut: float  # fraction of truncated texts
    unknown: float  # mean fraction of a text's tokens outside the vocabulary
    unread: float  # fraction of texts with more than MAX_UNKNOWN of their tokens outside it


def text_shares(files: Iterable[Path]) -> Shares | None:
    sums = Counter[str]()
    for path in files:
        sums.update(io.record(path).get(READ, {}))
    if not sums["items"]:
        return None

    return Shares(*(sums[name] / sums["items"] for name in Shares._fields))


def judge_quality(
    facts: Facts, shards: Sequence[Path], file: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return facts about a set for run.json, and warnings.

    Raises UserError if all vectors are zero.
    """
    name = facts.encoder
    note: dict[str, Any] = {}
    if facts.model:
        note["encoder"] = {"dim": io.width(shards[0].parent)} | facts.model

    warnings = []
    if shares := text_shares(shards):
        note |= {"text_read": round(shares.read, 4), "text_cut": round(shares.cut, 4)}
        if shares.unread:
            note["text_unread"] = round(shares.unread, 4)
        warnings += [f"{name}: {problem}" for problem in describe_reading(shares)]

    items, zero, equal = count_vectors(_vectors_with_content(shards))
    if items and zero == items and not facts.parts and facts.kind not in MAY_BE_ZERO:
        raise UserError(
            f"{file or name}: all {items:,} items with content have a vector of zeros; "
            "correct or leave it out"
        )

    if items > 1 and equal and zero < items:
        warnings.append(f"{name}: all {items:,} items with content have the same vector")
    elif zero > WARN_ABOVE_ZEROS * items:
        warnings.append(f"{name}: {zero:,} of {items:,} items with content have a vector of zeros")

    return {name: note} if note else {}, warnings


def describe_model(facts: Facts) -> str:
    """Return what was chosen for a third-party model: precision, pooling, task and prompt."""
    named = [(name, facts.model.get(name)) for name in ("precision", "pooling", "task")]
    parts = [f"{name} {value}" for name, value in named if value]
    if prompt := facts.model.get("prompt"):
        parts.append(f"prompt {prompt!r}")
    return ", ".join(parts)


def describe_reading(shares: Shares) -> list[str]:
    """Return what an encoder did not read of the texts."""
    problems = []
    if shares.cut:
        problems.append(
            f"reads {shares.read:.0%} of a text on average; {shares.cut:.0%} of texts are cut"
        )
    if shares.unread >= MIN_UNREAD:
        problems.append(
            f"cannot read {shares.unread:.0%} of texts; add an encoder of their language, such as "
            f"`{MULTILINGUAL}`, and list it in encode.encoders"
        )
    return problems


def distinguishes(features: FeatureSet) -> bool:
    """Return whether any two items with content have different vectors."""
    items, _, equal = count_vectors(_vectors_with_content(features.shards))
    return items < 2 or not equal


def differ(vectors: np.ndarray) -> bool:
    """Return whether any two nonzero rows of [I, F] differ."""

    def nonzero_blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(vectors), COUNTING_BLOCK_ROWS):
            block = vectors[start : start + COUNTING_BLOCK_ROWS]
            yield block[block.any(axis=1)]

    _, _, equal = count_vectors(nonzero_blocks())
    return not equal


def count_vectors(blocks: Iterable[np.ndarray]) -> tuple[int, int, bool]:
    """Return the number of vectors, the number of zero vectors, and whether all are equal."""
    items = 0
    zero = 0
    equal = True
    first: np.ndarray | None = None
    for vectors in blocks:
        if not len(vectors):
            continue

        if first is None:
            first = vectors[0]
        items += len(vectors)
        zero += int((~vectors.any(axis=1)).sum())
        largest_difference = np.abs(vectors - first).max()
        equal = equal and bool(largest_difference <= EQUAL_WITHIN * np.abs(first).max())

    return items, zero, equal


def _vectors_with_content(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        with io.reraise_faults(path):
            rows = pq.read_table(path, columns=["has_image", "has_text", "vector"])
        nothing = pc.and_kleene(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))
        has_content = pc.invert(nothing).fill_null(True)
        yield io.matrix(rows.filter(has_content)["vector"])
