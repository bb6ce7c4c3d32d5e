"""How large a dataset will be: as its stages counted it, as published, or as its files say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.http.fetch import local
from pipeline.layout import Layout
from pipeline.sources.base import Downloaded
from pipeline.sources.catalogue import SIZES
from pipeline.sources.sample import SampleSource

SURVIVE = 7_050 / 71_317
"""items of a product of Baby's metadata"""
SAMPLE = {"users": 2_970 / 3_600, "items": 1_559 / 1_600, "interactions": 31_692 / 3_600}
"""what the filter leaves of the embedded dataset's shoppers and stickers, and interactions a shopper"""


@dataclass(frozen=True)
class Size:
    """What a dataset has after filtering."""

    users: int
    """U"""
    items: int
    """I"""
    interactions: int
    products: int
    """lines of the metadata"""
    has_content: bool
    """whether items have texts and images"""
    origin: str
    """where the numbers are from"""

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions, {self.origin}"


def of(params: Parameters, layout: Layout) -> Size:
    """Return the size of a dataset.

    Raises:
        UserError: nothing says it, or a file of it is missing or cannot be read.
    """
    source = params.source(layout.dataset)
    content = not isinstance(source, Downloaded) or "metadata" in source.files()
    record = layout.run_record("interactions")
    if record.exists():
        done = io.read_json(record)
        return _of(done["notes"]["users"], done["notes"]["items"], done["rows_out"], content, f"counted in {record}")
    if isinstance(source, SampleSource):
        users, items = round(source.users * SAMPLE["users"]), round(source.items * SAMPLE["items"])
        left = round(source.users * SAMPLE["interactions"])
        return Size(users, items, left, source.items, content, "as the embedded dataset's filter leaves them")
    if published := SIZES.get((source.kind, getattr(source, "category", None) or "")):
        return _of(*published, content, "as published")
    return _measured(params, layout.dataset, content)


def _of(users: int, items: int, interactions: int, has_content: bool, origin: str) -> Size:
    return Size(users, items, interactions, round(items / SURVIVE), has_content, origin)


def _measured(params: Parameters, dataset: str, has_content: bool) -> Size:
    """Return the size that the files have, where all that is needed is on this machine."""
    from pipeline.interactions import catalogue  # loads DuckDB
    from pipeline.sources import download, registry

    source = params.source(dataset)
    addresses = source.files() if isinstance(source, Downloaded) else {}
    raw = {role: path for role, mirrors in addresses.items() if (path := local(mirrors[0])) is not None}
    if not addresses or raw.keys() < addresses.keys():
        raise UserError(
            f"how large {dataset} is, nobody has published; run `alignrec download {dataset} && alignrec interactions "
            f"{dataset}`, then plan the rest"
        )
    download.local_files(addresses)  # names one that is missing
    left = catalogue.measure(registry.reader(source), {role: Path(path) for role, path in raw.items()})
    return Size(left.users, left.items, left.interactions, left.items, has_content, "counted in its files")
