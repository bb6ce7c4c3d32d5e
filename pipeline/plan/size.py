"""Size of a dataset: as its stages counted it, as published, or from its files."""

from dataclasses import dataclass

import pyarrow.compute as pc

import schemas
from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.http.fetch import local
from pipeline.layout import Layout
from pipeline.sources import download
from pipeline.sources.amazon import SIZES
from pipeline.sources.base import Downloaded
from pipeline.sources.feature_files import FEATURE
from pipeline.sources.sample import SampleSource

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
    pieces = _pieces(layout, NAMES if isinstance(source, SampleSource) else LONGEST) if has_content else 0
    if found := count(layout, pieces):
        return found
    if isinstance(source, SampleSource):
        given = (source.users, source.items, source.users)
        users, items, left = (round(n * r) for n, r in zip(given, SAMPLE, strict=True))
        return Size(users, items, left, pieces, "as the embedded dataset's filter leaves them", source.items)
    if published := SIZES.get((source.kind, getattr(source, "category", None) or "")):
        return Size(*published, pieces, "as published", round(published.items / SURVIVE))
    return _measure(params, layout.dataset, pieces)


def count(layout: Layout, pieces: int) -> Size | None:
    if not (record := layout.run_record("interactions")).exists():
        return None
    done = io.read_json(record)
    users, items = done["notes"]["users"], done["notes"]["items"]
    origin = f"counted in {record}"
    return Size(users, items, done["rows_out"], _pieces(layout, pieces), origin, round(items / SURVIVE))


def _pieces(layout: Layout, otherwise: int) -> int:
    if not layout.items.exists():
        return otherwise
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"]
    return max(1, round((pc.mean(pc.utf8_length(texts)).as_py() or 0) / PIECE))


def _measure(params: Parameters, dataset: str, pieces: int) -> Size:
    from pipeline.interactions import catalogue  # loads DuckDB

    source = params.source(dataset)
    files = source.files() if isinstance(source, Downloaded) else {}
    paths = {role: local(mirrors[0]) for role, mirrors in files.items() if not role.startswith(FEATURE)}
    raw = {role: path for role, path in paths.items() if path is not None}
    if not paths or raw.keys() < paths.keys():
        raise UserError(
            f"{dataset}: no published size; run `alignrec download {dataset} && alignrec interactions {dataset}`, "
            "then plan the rest"
        )
    if missing := next((path for path in raw.values() if not path.is_file()), None):
        raise UserError(download.MISSING.format(missing))
    left = catalogue.measure(source.reader(), raw)
    return Size(left.users, left.items, left.interactions, pieces, "counted in its files", left.items)
