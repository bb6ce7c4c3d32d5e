"""Outputs of a dataset's stages, for reports; None or empty for stages that did not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import Comparison, list_ablations, list_comparisons
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import quoted_record


def read_json(path: Path, absent: Any) -> Any:
    return io.read_json(path) if path.exists() else absent


def _table_property(
    locate: Callable[[Layout], Path], schema: pa.Schema, columns: list[str] | None = None
) -> cached_property[pa.Table | None]:
    def read(outputs: Outputs) -> pa.Table | None:
        path = locate(outputs.layout)
        return io.read_table(path, schema, columns) if path.exists() else None

    return cached_property(read)


@dataclass(frozen=True)
class Outputs:
    """Outputs of a dataset, read and validated on first access."""

    layout: Layout
    kind: str = ""  # kind of the source
    released: str = ""  # feature set of the released recommender
    stages: Sequence[str] = ()  # stages whose records are read, in order

    interactions = _table_property(lambda layout: layout.interactions, schemas.INTERACTIONS)
    items = _table_property(
        lambda layout: layout.items, schemas.ITEMS, ["item_id", "asin", "title", "categories"]
    )
    results = _table_property(lambda layout: layout.results, schemas.RESULTS)
    tests = _table_property(lambda layout: layout.tests, schemas.TESTS)
    tuning = _table_property(lambda layout: layout.tuning, schemas.TUNING)  # None without a search

    @cached_property
    def probes(self) -> dict[str, Any] | None:
        return read_json(self.layout.probes, None)

    @cached_property
    def protocols(self) -> list[dict[str, Any]]:
        return read_json(self.layout.protocol, [])

    @cached_property
    def image_facts(self) -> pa.Table | None:
        tables = list(self.images("status", "reason"))
        return pa.concat_tables(tables) if tables else None

    def images(self, *columns: str) -> Iterator[pa.Table]:
        for path in sorted(self.layout.images.glob("images-*.parquet")):
            yield io.read_table(path, schemas.IMAGES, ["item_id", *columns])

    @cached_property
    def graphs(self) -> list[str]:
        return sorted(
            path.parent.name for path in self.layout.folder("graph").glob("*/edges.parquet")
        )

    def edges(self, features: str, items: Sequence[int] | None = None) -> pa.Table:
        """Return the edges of all items, or of some."""
        table = io.read_table(self.layout.edges(features), schemas.EDGES)
        if items is None:
            return table
        return table.filter(pc.is_in(table["item_id"], pa.array(items, pa.int32())))

    @cached_property
    def compared(self) -> list[Comparison]:
        return [] if self.results is None else list_comparisons(self.results)

    @cached_property
    def ablated(self) -> list[Comparison]:
        return [] if self.results is None else list_ablations(self.results)

    @cached_property
    def study(self) -> dict[str, pa.Table]:
        return {
            part: io.read_table(self.layout.study(part), schema)
            for part, schema in schemas.STUDY.items()
            if self.layout.study(part).exists()
        }

    @cached_property
    def reading(self) -> dict[str, dict[str, Any]]:
        """Feature set of `encode` -> what its encoder read of the texts, if it counts that.

        Raises UserError if a record was edited.
        """
        notes = {}
        for path in sorted(self.layout.out("encode").glob(f"*/{io.RECORD}")):
            name = path.parent.name
            note = quoted_record(self.layout, "encode", name).get("notes", {}).get(name, {})
            if "text_read" in note:
                notes[name] = note
        return notes

    @property
    def unread(self) -> dict[str, float]:
        """Feature set -> fraction of texts that its encoder cannot read."""
        return {name: note.get("text_unread", 0.0) for name, note in self.reading.items()}

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """Run stages in order -> their run.json; UserError if one was edited."""
        ran = [stage for stage in self.stages if self.layout.run_record(stage).exists()]
        return {stage: quoted_record(self.layout, stage) for stage in ran}
