"""The feature sets of one dataset: their names, the files that each depends on, and how their rows are made.

A maker takes the first and the last + 1 item and returns their rows, schema features(F).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.encode import batching, concat, contexts, controls, engines, masked
from pipeline.encode.base import Context, Encoder
from pipeline.encode.contexts import context_of, modalities
from pipeline.encode.masked import MaskedParams
from pipeline.encode.names import TEXT
from pipeline.encode.params import Encode
from pipeline.encode.registry import Encoders, settings, spec
from pipeline.encode.whitened import Whitened, WhitenedParams, source
from pipeline.errors import UserError
from pipeline.items import identifiers
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.sources import image_features
from pipeline.sources.image_features import FEATURE, ROWS, check_features

Maker = Callable[[int, int], pa.Table]

LOADING = Lock()
"""one network is loaded at a time: libraries are not made for more, and one that draws weights sets torch's seed"""
WIDTH = 64
"""of the controls where there is no other feature set"""


def names(params: Encode, imports: Iterable[str]) -> list[str]:
    """Return all feature sets in the order in which they are made: encoded, imported, controls.

    Raises:
        UserError: two feature sets of one name.
    """
    names = [*params.encoders, *imports, *params.controls]
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated:
        raise UserError(f"encode: two feature sets are called '{repeated}'; rename the imported one or list it once")
    return names


@dataclass(frozen=True)
class Imported:
    """A feature set from an imported file."""

    path: Path
    """.npy, a row an item, or .b, a record an ASIN"""
    before: Path | None = None
    """folder of the feature set that is concatenated before it; both parts have length 1"""
    rows: Path | None = None
    """mapping file of a .npy file; None: row i is item i"""

    def inputs(self, layout: Layout) -> list[Path]:
        """Return the files that the features depend on."""
        beside = [self.rows] if self.rows else []
        return [self.path, layout.item_ids, *beside, *(io.shards(self.before, "features") if self.before else [])]


def imports(raw: Mapping[str, Path], layout: Layout, items: int, encoders: Sequence[str]) -> dict[str, Imported]:
    """Return the imported feature sets; image features by ASIN also concatenated with MiniLM, if that is encoded.

    Args:
        raw: role -> file.
        layout: of the dataset.
        items: I.
        encoders: names of those that run.

    Raises:
        UserError: a .npy file that does not have one row of numbers for each item, or for each that `feature_rows`
            names; or that names no item of the dataset.
    """
    mapping = raw.get(ROWS)
    check_features(raw, items if mapping is None else len(identifiers.order(mapping, _asins(layout))))
    files = {role.removeprefix(FEATURE): path for role, path in raw.items() if role.startswith(FEATURE)}
    features = {name: Imported(path, rows=mapping if _is_array(path) else None) for name, path in files.items()}
    if TEXT in encoders:
        image_files = {name: path for name, path in files.items() if image_features.matches(path)}
        features |= {f"{TEXT}-{name}": Imported(path, layout.features(TEXT)) for name, path in image_files.items()}
    return features


def without_vector(folder: Path) -> int:
    """Return how many items an imported file had no vector of."""
    flags = [pq.read_table(path, columns=["has_image", "has_text"]) for path in io.shards(folder, "features")]
    nothing = [pc.and_(pc.invert(shard["has_image"]), pc.invert(shard["has_text"])) for shard in flags]
    return sum(pc.sum(shard).as_py() or 0 for shard in nothing)


def rows_of(
    context: Context,
    ids: pa.Table,
    texts: Sequence[str],
    done: Callable[[int], object],
    throughput: batching.Throughput,
) -> Maker:
    """Return the maker of an encoder's rows; the network is loaded on the first call.

    Args:
        context: what it is made from.
        ids: item_id and asin of all items.
        texts: of all items.
        done: called with the number of items after each batch.
        throughput: counts operations and seconds.
    """
    own = settings(context.encoders, context.name)
    if isinstance(own, WhitenedParams):
        return _counted(Whitened(source(context, own), own.width, context.params.shard_rows), done)
    if isinstance(own, MaskedParams):
        masked.check(context, own)
        return _counted(_without(context.parts[0], own.modality, ids, texts, throughput), done)
    if not context.parts:
        return encoded(context, ids, texts, done, throughput)
    makers = [_part(context, part, ids, texts, throughput) for part in context.parts]
    return _counted(lambda start, stop: concat.beside([maker(start, stop) for maker in makers]), done)


def encoded(
    context: Context,
    ids: pa.Table,
    texts: Sequence[str],
    done: Callable[[int], object],
    throughput: batching.Throughput,
    hidden: str = "",
) -> Maker:
    """Return the maker of the rows of an encoder with a network, from which a modality may be hidden; see `rows_of`."""
    entry, own = spec(context.encoders, context.name), settings(context.encoders, context.name)
    reads = [modality for modality in modalities(context) if modality != hidden]
    shards = io.shards(context.layout.images, "images") if "image" in reads else []

    @cache
    def encoder() -> Encoder:
        with LOADING:
            return entry.make(context, own)

    def make(start: int, stop: int) -> pa.Table:
        visible = texts[start:stop] if "text" in reads else [""] * (stop - start)
        params = context.params
        with throughput.on("read"):
            images = batching.read_images(shards, start, stop) if shards else [None] * (stop - start)
        batch = batching.encode(encoder(), visible, images, params.batch_size, done, params.workers, throughput)
        return batching.table(ids.slice(start, stop - start), batch)

    return make


def worker(name: str, layout: Layout, params: Encode, encoders: Encoders) -> engines.Worker:
    """Return a function that encodes items (first, last + 1) on any node: it reads the tables itself."""
    ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    make = rows_of(context_of(layout, params, encoders, name), ids, texts, int, batching.Throughput())
    return lambda job: make(*job)


def _part(
    context: Context, part: Context, ids: pa.Table, texts: Sequence[str], throughput: batching.Throughput
) -> Maker:
    """Return the maker of a part's rows: read where they are made anyway, else encoded."""
    listed = part.name in context.params.encoders
    return _written(part) if listed else rows_of(part, ids, texts, int, throughput)


def _written(context: Context) -> Maker:
    """Return the maker that reads the rows of a feature set that has been made."""
    folder, size = context.layout.features(context.name), context.params.shard_rows

    def make(start: int, stop: int) -> pa.Table:
        path = io.shard(folder, "features", start // size)
        return io.read_table(path, schemas.features(pq.read_schema(path).field("vector").type.list_size))

    return make


def _without(
    context: Context, modality: str, ids: pa.Table, texts: Sequence[str], throughput: batching.Throughput
) -> Maker:
    """Return the maker of a feature set's rows without a modality: of its own rows where that can be, else encoded."""
    own, listed = settings(context.encoders, context.name), context.name in context.params.encoders
    if modality not in contexts.reads(context):
        return _part(context, context, ids, texts, throughput)
    if isinstance(own, WhitenedParams):
        whitened = Whitened(source(context, own), own.width, context.params.shard_rows)
        other = _without(context.parts[0], modality, ids, texts, throughput)
        return lambda start, stop: whitened.of(other(start, stop))
    if listed and (blank := masked.blank(context, modality)):
        written = _written(context)

        def make(start: int, stop: int) -> pa.Table:
            rows = written(start, stop)
            return masked.without(rows, blank(io.matrix(rows["vector"])), modality)

        return make
    if not context.parts:
        return encoded(context, ids, texts, int, throughput, modality)
    parts = [_without(part, modality, ids, texts, throughput) for part in context.parts]
    return lambda start, stop: concat.beside([part(start, stop) for part in parts])


def _counted(maker: Maker, done: Callable[[int], object]) -> Maker:
    """Return a maker that calls `done` with the number of rows that it made."""

    def make(start: int, stop: int) -> pa.Table:
        rows = maker(start, stop)
        done(stop - start)
        return rows

    return make


def imported(features: Imported, ids: pa.Table) -> Maker:
    """Return the maker of imported rows; `ids` holds item_id and asin of all items."""
    path = features.path
    if _is_array(path):
        return _array(features, ids)
    text = io.read_features(features.before) if features.before else None

    def make(start: int, stop: int) -> pa.Table:
        rows = ids.slice(start, stop - start)
        vectors, has_image = image_features.read(path, rows["asin"].to_pylist())
        if text is None:
            return batching.table(rows, batching.Encoded(vectors, has_image, np.zeros(len(rows), bool)))
        before = text.slice(start, stop - start)
        vectors = np.hstack([unit_rows(x)[0] for x in (io.matrix(before["vector"]), vectors)])
        return batching.table(rows, batching.Encoded(vectors, has_image, before["has_text"].to_numpy()))

    return make


def _array(features: Imported, ids: pa.Table) -> Maker:
    """Return the maker of the rows of a .npy file."""
    place, asins = np.arange(len(ids)), ids["asin"].to_pylist()
    if features.rows is not None:
        row = {asin: i for i, asin in enumerate(identifiers.order(features.rows, asins))}
        place = np.array([row.get(asin, -1) for asin in asins])

    def make(start: int, stop: int) -> pa.Table:
        vectors = batching.read_npy(features.path, place[start:stop])
        present = None if features.rows is None else place[start:stop] >= 0
        return batching.imported(ids.slice(start, stop - start), vectors, present)

    return make


def _asins(layout: Layout) -> list[str]:
    names: list[str] = io.read_table(layout.item_ids, schemas.ITEM_IDS, ["asin"])["asin"].to_pylist()
    return names


def _is_array(path: Path) -> bool:
    return not image_features.matches(path)


def control(kind: str, ids: pa.Table, like: Path | None, seed: int) -> Maker:
    """Return the maker of a control's rows.

    Args:
        kind: random, shuffled or constant.
        ids: item_id and asin of all items.
        like: folder of the feature set whose width it has, and whose rows `shuffled` permutes; None: there is none.
        seed: of the draws.
    """
    original = None if like is None else io.read_features(like)
    width = WIDTH if original is None else original["vector"].type.list_size
    if kind == "shuffled" and original is not None:
        shuffled = original.take(controls.shuffled(len(ids), seed)).drop_columns(["item_id", "asin"])
        shuffled = shuffled.add_column(0, "asin", ids["asin"]).add_column(0, "item_id", ids["item_id"])
        return lambda start, stop: shuffled.slice(start, stop - start)
    vectors = controls.constant(len(ids), width) if kind == "constant" else controls.random(len(ids), width, seed)
    absent = np.zeros(len(ids), bool)

    def make(start: int, stop: int) -> pa.Table:
        rows = batching.Encoded(vectors[start:stop], absent[start:stop], absent[start:stop])
        return batching.table(ids.slice(start, stop - start), rows)

    return make
