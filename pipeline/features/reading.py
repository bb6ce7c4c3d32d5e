"""Fraction of each text that was encoded: stored with the rows, reported by stage, release and card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import io

if TYPE_CHECKING:  # loads torch
    from pipeline.encode.chunks import Reading

KEY = "text"  # in the metadata of a file


class Shares(NamedTuple):
    """Shares over the items with a text."""

    read: float  # mean share of a text's tokens that was encoded
    cut: float  # share of truncated texts

    def facts(self) -> dict[str, float]:
        return {"text_read": round(self.read, 4), "text_cut": round(self.cut, 4)}

    def line(self, name: str) -> str:
        return f"{name}: reads {self.read:.0%} of a text on average; {self.cut:.0%} of the texts are cut"


def summed(counts: Iterable[dict[str, float]]) -> Shares | None:
    sums = Counter[str]()
    for count in counts:
        sums.update(count)
    return Shares(sums["read"] / sums["items"], sums["cut"] / sums["items"]) if sums["items"] else None


def append_reading(rows: pa.Table, reading: Reading | None) -> pa.Table:
    texts = rows["has_text"].to_numpy()
    for name, numbers in reading._asdict().items() if reading else ():
        of_all = np.zeros(len(rows), np.int64)
        of_all[texts] = numbers
        rows = rows.append_column(name, pa.array(of_all, mask=~texts))
    return rows


def record(rows: pa.Table) -> dict[str, dict[str, float]]:
    from pipeline.encode.chunks import Reading  # loads torch

    known = rows.filter(rows["read"].is_valid()) if "read" in rows.column_names else rows[:0]
    return {KEY: Reading(known["read"].to_numpy(), known["there"].to_numpy()).facts()} if len(known) else {}


def shares(files: Iterable[Path]) -> Shares | None:
    """Return the shares of a feature set; None without texts, or if they are unknown."""
    records = map(io.record, files)
    return summed(record[KEY] for record in records if KEY in record)
