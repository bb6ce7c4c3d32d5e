"""The runs of a benchmark and their records. Loads no model: reports read it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline import io
from pipeline.layout import Layout

NO_FEATURES = "none"


class Entry(NamedTuple):
    """One training of the benchmark."""

    model: str
    features: str  # feature set, or NO_FEATURES
    seed: int  # number of the run
    ablation: str = ""  # key of `benchmark.ablations`; empty for the full model


def listed(keys: Mapping[Entry, str]) -> list[dict[str, str | int]]:
    return [entry._asdict() | {"cell": key} for entry, key in keys.items()]


def keys(layout: Layout) -> dict[Entry, str]:
    rows = io.read_json(layout.runs) if layout.runs.is_file() else []
    return {Entry(**{name: row[name] for name in Entry._fields}): row["cell"] for row in rows}


def rankings(layout: Layout, entry: Entry, suffix: str = "") -> Path:
    return layout.cells("benchmark") / f"{keys(layout)[entry]}{suffix}.parquet"
