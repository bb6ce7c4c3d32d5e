"""The folder of unfinished vectors, laid out as the outputs of a dataset, so that `encode` works in it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.layout import Layout

DATASET = "table"  # what a table is called in the folder


@dataclass(frozen=True)
class Work:
    """Paths in the folder."""

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)  # provenance of its tables

    @property
    def layout(self) -> Layout:
        return Layout(self.folder, DATASET)

    @property
    def done(self) -> Path:
        return self.folder / "done"

    @property
    def rejects(self) -> Path:
        return self.folder / "rejects"

    @property
    def rejected(self) -> Path:
        return self.rejects / "rejected.json"
