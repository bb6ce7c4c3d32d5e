"""How much of its texts an encoder read: kept with its rows, told by its stage, its release and its card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pipeline import io

if TYPE_CHECKING:  # which loads torch
    from pipeline.encode.chunks import Reading

KEY = b"text"
"""of the metadata of rows, and of the record of a file"""


class Shares(NamedTuple):
    """Of the items that have a text."""

    read: float
    """mean share of a text's tokens that was read"""
    cut: float
    """share of the items whose texts were not read to the end"""

    def facts(self) -> dict[str, float]:
        """Return them for run.json."""
        return {"text_read": round(self.read, 4), "text_cut": round(self.cut, 4)}

    def line(self, name: str) -> str:
        """Return what is to be said where texts are cut."""
        return f"{name}: reads {self.read:.0%} of a text on average; {self.cut:.0%} of the texts are cut"


def summed(counts: Iterable[dict[str, float]]) -> Shares | None:
    """Return the shares of several counts, see `Reading.facts`; None where no text was read."""
    sums = Counter[str]()
    for count in counts:
        sums.update(count)
    return Shares(sums["read"] / sums["items"], sums["cut"] / sums["items"]) if sums["items"] else None


def kept(rows: pa.Table, reading: Reading | None) -> pa.Table:
    """Return rows whose metadata have the counts of a reading, see `Reading.facts`."""
    return rows if reading is None else rows.replace_schema_metadata({KEY: json.dumps(reading.facts())})


def record(rows: pa.Table) -> dict[str, dict[str, float]]:
    """Return the counts that `kept` kept, for the record of a file."""
    counts = (rows.schema.metadata or {}).get(KEY)
    return {} if counts is None else {KEY.decode(): json.loads(counts)}


def shares(files: Iterable[Path]) -> Shares | None:
    """Return what the records of a feature set's files say; None where no text was read, or nothing is known."""
    records = map(io.record, files)
    return summed(record[KEY.decode()] for record in records if KEY.decode() in record)
