"""Size of a dataset after filtering: counted, published or estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from alignrec.commands.params import has_content
from alignrec.pipeline import io
from alignrec.pipeline.dataset.catalogue import measure_catalogue
from alignrec.pipeline.dataset.items import compose_text
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.categories import find_category
from alignrec.pipeline.sources.sample import SampleSource
from alignrec.pipeline.vectors.formats import FEATURE
from alignrec.pipeline.web.download import local_path

SAMPLE_PURCHASES = 9  # of a user of the embedded dataset
CHARACTERS_PER_PIECE = 4
SAMPLE_PIECES = 12  # tokens of a text in `sample`
TEXTS_MEASURED = 1000  # of a file of items
DEFAULT_PIECES = 128  # tokens of a text whose length is unknown


@dataclass(frozen=True)
class Size:
    """Size of a dataset after filtering."""

    users: int
    items: int
    interactions: int
    pieces: int  # mean tokens per text; 0 if items have neither texts nor images
    origin: str

    def __str__(self) -> str:
        texts = f", {self.pieces} pieces a text" if self.pieces else ""
        counts = f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"
        return f"{counts}{texts}, {self.origin}"


def read_size(params: Parameters, layout: Layout) -> Size:
    source = params.source(layout.dataset)
    pieces = 0
    if has_content(params, layout.dataset):
        pieces = measure_pieces(source, params[Items].text)

    record = layout.run_record("interactions")
    if record.exists():
        run = io.read_json(record)
        notes = run["notes"]
        return Size(notes["users"], notes["items"], run["rows_out"], pieces, f"counted in {record}")

    if isinstance(source, SampleSource):
        purchases = SAMPLE_PURCHASES * source.users
        return Size(source.users, source.items, purchases, pieces, "before its filter")

    published = find_category(source.kind, getattr(source, "category", None) or "")
    core = published.estimate_core()
    if core:
        origin = "as published" if published.core else "estimated from published counts"
        return Size(*core, pieces, origin)

    left = measure_catalogue(source, find_local_files(source, layout.dataset))
    return Size(left.users, left.items, left.interactions, pieces, "counted in its files")


def measure_pieces(source: Source, fields: Sequence[str]) -> int:
    """Return the mean number of tokens of the first texts in a source's file of items.

    DEFAULT_PIECES if it is not on this machine.
    """
    if isinstance(source, SampleSource):
        return SAMPLE_PIECES
    address = source.files().get("metadata") if isinstance(source, Downloaded) else None
    path = local_path(address) if address else None
    if path is None or not path.is_file():
        return DEFAULT_PIECES

    reader = source.reader()
    reader.metadata({"metadata": path})  # checks its columns
    products = map(reader.product, reader.first_records(path, TEXTS_MEASURED))
    lengths = [len(compose_text(product, fields)) for product in products]
    if not lengths:
        return DEFAULT_PIECES
    return max(1, round(mean(lengths) / CHARACTERS_PER_PIECE))


def find_local_files(source: Source, dataset: str) -> dict[str, Path]:
    """Return role -> path of a source's files; UserError if they are not all on this machine."""
    files = source.files() if isinstance(source, Downloaded) else {}
    tables = [role for role in files if not role.startswith(FEATURE)]
    paths = {role: path for role in tables if (path := local_path(files[role]))}
    if not tables or len(paths) < len(tables):
        remedy = f"run `alignrec download {dataset} && alignrec interactions {dataset}`"
        raise UserError(f"{dataset}: no published size; {remedy}, then plan the rest")
    return {role: io.require_plain(path) for role, path in paths.items()}
