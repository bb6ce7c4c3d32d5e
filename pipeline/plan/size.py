"""How large a dataset will be: as its stages counted it, as published, or as its files say."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

import schemas
from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.http.fetch import local
from pipeline.layout import Layout
from pipeline.sources.base import Downloaded
from pipeline.sources.catalogue import SIZES
from pipeline.sources.feature_files import FEATURE
from pipeline.sources.sample import SampleSource

SURVIVE = 7_050 / 71_317
"""items of a product of Baby's metadata"""
SAMPLE = {"users": 2_970 / 3_600, "items": 1_559 / 1_600, "interactions": 31_692 / 3_600}
"""what the filter leaves of the embedded dataset's shoppers and stickers, and interactions a shopper"""
PIECE, NAMES, LONGEST = 4, 12, 128
"""characters of a text's piece; pieces of a sticker's text; pieces of a text that nothing is known of"""


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
    pieces: int
    """of a text, about; 0: items have neither texts nor images"""
    origin: str
    """where the numbers are from"""

    def __str__(self) -> str:
        texts = f", {self.pieces} pieces a text" if self.pieces else ""
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions{texts}, {self.origin}"


def measure(params: Parameters, layout: Layout) -> Size:
    """Return the size of a dataset; UserError where nothing says it, or a file of it cannot be read."""
    source = params.source(layout.dataset)
    has_content = not isinstance(source, Downloaded) or "metadata" in source.files()
    pieces = _pieces(layout, NAMES if isinstance(source, SampleSource) else LONGEST) if has_content else 0
    if found := counted(layout, pieces):
        return found
    if isinstance(source, SampleSource):
        users, items = round(source.users * SAMPLE["users"]), round(source.items * SAMPLE["items"])
        left = round(source.users * SAMPLE["interactions"])
        return Size(users, items, left, source.items, pieces, "as the embedded dataset's filter leaves them")
    if published := SIZES.get((source.kind, getattr(source, "category", None) or "")):
        return _of(*published, pieces, "as published")
    return _measured(params, layout.dataset, pieces)


def counted(layout: Layout, pieces: int) -> Size | None:
    """Return the size that the stages counted, None before they have.

    Args:
        pieces: of a text, where the stage `items` has not run.
    """
    record = layout.run_record("interactions")
    if not record.exists():
        return None
    done, pieces = io.read_json(record), _pieces(layout, pieces)
    return _of(done["notes"]["users"], done["notes"]["items"], done["rows_out"], pieces, f"counted in {record}")


def _of(users: int, items: int, interactions: int, pieces: int, origin: str) -> Size:
    return Size(users, items, interactions, round(items / SURVIVE), pieces, origin)


def _pieces(layout: Layout, otherwise: int) -> int:
    """Return the pieces of a text: those of the stage `items`, or a guess before it has run."""
    if not layout.items.exists():
        return otherwise
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"]
    return max(1, round((pc.mean(pc.utf8_length(texts)).as_py() or 0) / PIECE))


def _measured(params: Parameters, dataset: str, pieces: int) -> Size:
    """Return the size that the files have, where all that is needed is on this machine."""
    from pipeline.interactions import catalogue  # loads DuckDB
    from pipeline.sources import download

    source = params.source(dataset)
    files = source.files() if isinstance(source, Downloaded) else {}
    addresses = {role: mirrors for role, mirrors in files.items() if not role.startswith(FEATURE)}
    raw = {role: path for role, mirrors in addresses.items() if (path := local(mirrors[0])) is not None}
    if not addresses or raw.keys() < addresses.keys():
        raise UserError(
            f"how large {dataset} is, nobody has published; run `alignrec download {dataset} && alignrec interactions "
            f"{dataset}`, then plan the rest"
        )
    if missing := next((path for path in raw.values() if not path.is_file()), None):
        raise UserError(download.MISSING.format(missing))
    left = catalogue.measure(source.reader(), {role: Path(path) for role, path in raw.items()})
    return Size(left.users, left.items, left.interactions, left.items, pieces, "counted in its files")
