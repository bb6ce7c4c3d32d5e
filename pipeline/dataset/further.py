"""Further items of a catalogue: those of the item file that the k-core, or a split, leaves out."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.items import item_tables, read_metadata
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import MAX_LINE_BYTES
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.sources.base import Reader, downloaded_files

ALL_KEY = "items.all"


def list_further(reader: Reader, lines: Iterable[bytes], asins: Sequence[str]) -> list[str]:
    """Return the identifiers of items in metadata that are none of `asins`, sorted.

    Lines that cannot be read are left out.
    """
    known = set(asins)
    further = set[str]()
    for line in lines:
        name = _read_name(reader, line)
        if name and name not in known:
            further.add(name)
    return sorted(further)


def _read_name(reader: Reader, line: bytes) -> str | None:
    if len(line) > MAX_LINE_BYTES or not line.strip():
        return None
    try:
        name = reader.name(reader.parse(line))
        (name or "").encode()  # a lone surrogate cannot be stored
    except ValueError:
        return None
    return name


def refuse_numbered(reader: Reader, asins: Sequence[str], kind: str) -> None:
    """Raise UserError if the metadata of a source names items by number."""
    if list(reader.wanted(list(asins))) != list(asins):
        raise UserError(
            f"'{ALL_KEY}': the item file of a source of kind {kind} names no items but those of "
            "its split; leave it out"
        )


def write_further(run: Run, asins: Sequence[str]) -> None:
    """Write the table of further items, whose ids follow those of `asins`."""
    layout = run.layout
    params = run.params[Items]
    reader = run.source.reader()
    path = reader.metadata(downloaded_files(layout.sources))
    if path is None:
        raise UserError(
            f"'{ALL_KEY}': {run.dataset} has no item file, which would name further items; "
            "leave it out"
        )
    refuse_numbered(reader, asins, run.source.kind)

    further = list_further(reader, run.progress(reader.lines(path), "further", unit="line"), asins)
    if further:
        metadata = read_metadata(
            reader.lines(path), run.source, further, path.name, params.max_reject_share,
            folder=run.folder,
        )  # fmt: skip
        tables = item_tables(metadata.products, further, params.text)
        run.write_all(_number(tables, len(asins)), layout.further_items, schemas.ITEMS)
    run.note(further=len(further))


def _number(tables: Iterable[pa.Table], first: int) -> Iterator[pa.Table]:
    """Add the id of the first item to the ids of tables."""
    for table in tables:
        ids = table["item_id"].to_numpy() + np.int32(first)
        yield io.set_column(table, "item_id", pa.array(ids, pa.int32()))
