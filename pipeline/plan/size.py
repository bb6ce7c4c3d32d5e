"""Size of a dataset: as its stages counted it, as published, or from its files."""

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.parameters import Parameters
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.http.fetch import local
from alignrec.pipeline.sources import download
from alignrec.pipeline.sources.amazon import SIZES
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.feature_files import FEATURE
from alignrec.pipeline.sources.sample import SampleSource

SURVIVE = 7_050 / 71_317  # items per product of Baby's metadata
# users and items that the filter leaves of the embedded dataset's shoppers and stickers; interactions per shopper
SAMPLE = (2_970 / 3_600, 1_559 / 1_600, 31_692 / 3_600)
# characters of a piece of text; pieces of a sticker's text; pieces of an unknown text
PIECE, NAMES, LONGEST = 4, 12, 128


@dataclass(frozen=True)
class Size:
    """Counts after filtering; `products` are lines of the metadata before."""

    users: int
    items: int
    interactions: int
    pieces: int  # mean of a text; 0: items have neither texts nor images
    origin: str
    products: int

    def __str__(self) -> str:
        texts = f", {self.pieces} pieces a text" if self.pieces else ""
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions{texts}, {self.origin}"


def measure(params: Parameters, layout: Layout) -> Size:
    source = params.source(layout.dataset)
    has_content = not isinstance(source, Downloaded) or "metadata" in source.files()
    pieces = (NAMES if isinstance(source, SampleSource) else LONGEST) * has_content
    if layout.items.exists():
        texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"]
        pieces = max(1, round((pc.mean(pc.utf8_length(texts)).as_py() or 0) / PIECE))
    if (record := layout.run_record("interactions")).exists():
        done = io.read_json(record)
        users, items = done["notes"]["users"], done["notes"]["items"]
        return Size(users, items, done["rows_out"], pieces, f"counted in {record}", round(items / SURVIVE))
    if isinstance(source, SampleSource):
        given = (source.users, source.items, source.users)
        users, items, left = (round(n * r) for n, r in zip(given, SAMPLE, strict=True))
        return Size(users, items, left, pieces, "as the embedded dataset's filter leaves them", source.items)
    if published := SIZES.get((source.kind, getattr(source, "category", None) or "")):
        return Size(*published, pieces, "as published", round(published.items / SURVIVE))
    return _measure(source, layout.dataset, pieces)


def _measure(source: Any, dataset: str, pieces: int) -> Size:
    from alignrec.pipeline.interactions import source_split  # loads DuckDB

    files = source.files() if isinstance(source, Downloaded) else {}
    raw = {role: local(mirrors[0]) for role, mirrors in files.items() if not role.startswith(FEATURE)}
    if not raw or None in raw.values():
        raise UserError(
            f"{dataset}: no published size; run `alignrec download {dataset} && alignrec interactions {dataset}`, "
            "then plan the rest"
        )
    paths = {role: path for role, path in raw.items() if path is not None}
    if missing := next((path for path in paths.values() if not path.is_file()), None):
        raise UserError(download.MISSING.format(missing))
    left = source_split.measure_catalogue(source.reader(), paths)
    return Size(left.users, left.items, left.interactions, pieces, "counted in its files", left.items)
