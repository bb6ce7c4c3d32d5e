"""Every table of the pipeline: one Arrow schema each, and the one `check` that enforces them.

A comment on each column says what it holds, its unit and its shape; constraints that Arrow's types cannot say
(`low`, `high`, `one_of`) live in the field's metadata, so that they travel inside the Parquet files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TRAIN, VALID, TEST = 0, 1, 2  # interactions.split, numbered as in MMRec's x_label

IMAGE_STATUSES = (
    "ok",  # decoded, resized, stored
    "missing",  # the metadata names no image
    "http_error",  # the server said no; reason holds the code
    "unreachable",  # no connection: name not resolved, refused, cut
    "timeout",
    "not_an_image",
    "truncated",
    "too_small",
    "too_large",
    "placeholder",  # a "no image available" picture or a 1x1 pixel
    "blocked",  # address or scheme that the parameters do not allow
)


class ContractError(ValueError):
    """A table breaks its schema. The message is one line that names file, column and row."""


def field(
    name: str,
    dtype: pa.DataType,
    doc: str,
    *,
    nullable: bool = False,
    low: float | None = None,
    high: float | None = None,
    one_of: tuple[str, ...] | None = None,
) -> pa.Field:
    """Return an Arrow field whose metadata carries its meaning (`doc`) and its constraints."""
    limits = {"low": low, "high": high, "one_of": list(one_of) if one_of else None}
    metadata = {"doc": doc} | {k: json.dumps(v) for k, v in limits.items() if v is not None}
    return pa.field(name, dtype, nullable=nullable, metadata=metadata)


def vector(width: int) -> pa.DataType:
    """Return the type of one embedding: a fixed-size list of `width` float32."""
    return pa.list_(pa.field("element", pa.float32(), nullable=False), width)


ITEM_ID = field("item_id", pa.int32(), "dense item number, 0 .. I-1", low=0)
ASIN = field("asin", pa.string(), "the item's identifier at its source")
USER_ID = field("user_id", pa.int32(), "dense user number, 0 .. U-1", low=0)

INTERACTIONS = pa.schema(
    [
        USER_ID,
        ITEM_ID,
        field("rating", pa.float32(), "stars, 1 .. 5; null where the source has none", nullable=True),
        field("timestamp", pa.int64(), "Unix seconds, or see `clock`; null where it has no real time", nullable=True),
        field("split", pa.int8(), "0 train, 1 valid, 2 test", low=0, high=2),
    ]
)


def clock(interactions: pa.Table) -> str:
    """Return what the timestamps of a read table INTERACTIONS are: unix, order (positions in a sequence), or none."""
    if interactions["timestamp"].null_count:
        return "none"
    record = json.loads((interactions.schema.metadata or {}).get(b"alignrec", b"{}"))
    return str(record.get("timestamps", "unix"))


USERS = pa.schema([USER_ID, field("user", pa.string(), "the user's identifier at its source")])

ITEM_IDS = pa.schema([ITEM_ID, ASIN])

ITEMS = pa.schema(
    [
        ITEM_ID,
        ASIN,
        field("title", pa.string(), "clean; empty where the source has none"),
        field("brand", pa.string(), "clean; empty where the source has none"),
        field("categories", pa.list_(pa.string()), "path from the root, clean"),
        field("description", pa.string(), "clean; empty where the source has none"),
        field("text", pa.string(), "what encoders read: title, brand, categories, description"),
        field("text_status", pa.string(), "why the text is what it is", one_of=("ok", "empty", "no_metadata")),
        field("image_urls", pa.list_(pa.string()), "candidates, best first"),
        field("tokens", pa.int32(), "length of text in words between blanks; encoders cut these further", low=0),
        field("extra", pa.string(), "JSON object of the source's other fields, as they were: price, related, ..."),
    ]
)

REJECTS = pa.schema(
    [
        field("file", pa.string(), "name of the raw file"),
        field("line", pa.int64(), "line number from 1", low=1),
        field("reason", pa.string(), "why the line was not used"),
        field("raw", pa.binary(), "the line's bytes, as read"),
    ]
)

IMAGES = pa.schema(
    [
        ITEM_ID,
        ASIN,
        field("status", pa.string(), "how fetching ended", one_of=IMAGE_STATUSES),
        field("reason", pa.string(), "detail for a status that is not ok; empty for ok"),
        field("url", pa.string(), "the address that gave this result; empty for missing"),
        field("image", pa.binary(), "JPEG, RGB; null unless status is ok", nullable=True),
        field("width", pa.int32(), "pixels after resizing; 0 unless ok", low=0),
        field("height", pa.int32(), "pixels after resizing; 0 unless ok", low=0),
        field("sha256", pa.string(), "hex, of the bytes as fetched; empty where none came"),
        field("phash", pa.uint64(), "64-bit perceptual hash; null unless ok", nullable=True),
    ]
)

EDGES = pa.schema(
    [
        ITEM_ID,
        field("neighbour_id", pa.int32(), "item_id of the neighbour; the item itself comes first", low=0),
        field("rank", pa.int32(), "0 is the nearest", low=0),
        field("cosine", pa.float32(), "cosine similarity of the two feature vectors", low=-1.001, high=1.001),
    ]
)

MODEL = field("model", pa.string(), "alignrec, lightgcn, bpr, vbpr, ...")
FEATURE_SET = field("features", pa.string(), "feature set, or `none` for models on ids alone")
ABLATION = field("ablation", pa.string(), "key of `benchmark.ablations`; empty for the model as it is")
K = field("k", pa.int32(), "cutoff", low=1)

RUN = (
    field("dataset", pa.string(), "name in params.yaml"),
    MODEL,
    FEATURE_SET,
    ABLATION,
    field("seed", pa.int32(), "number of the run, from 0", low=0),
)
PROTOCOL = (
    field("protocol", pa.string(), "mmrec, strict, ...: name of the protocol"),
    field("fingerprint", pa.string(), "of the protocol; figures of two fingerprints never share a column of a table"),
)

RESULTS = pa.schema(
    [
        *RUN,
        *PROTOCOL,
        field("split", pa.string(), "where it was measured", one_of=("valid", "test")),
        field("metric", pa.string(), "what was measured", one_of=("recall", "ndcg", "precision", "map")),
        K,
        field(
            "selected_by", pa.string(), "what chose the settings; the epoch is always valid's", one_of=("valid", "test")
        ),
        field("value", pa.float64(), "mean over users with a target in the split", low=0, high=1),
    ]
)

SLICES = pa.schema(
    [
        *RUN,
        *PROTOCOL,
        field(
            "slice", pa.string(), "users by length of history, items by popularity, or everything shown",
            one_of=("history", "popularity", "catalogue"),
        ),
        field(
            "label", pa.string(),
            "history: train interactions (`3`, `4-5`, `20+`); popularity: tenth of the items, `1` the least popular, "
            "or `cold` for items that train lacks; catalogue: `all`",
        ),
        field("n", pa.int64(), "test users of the slice; of popularity: targets", low=0),
        field(
            "metric", pa.string(),
            "recall, ndcg: means over n; exposure: share of what is shown; coverage: share of the catalogue that "
            "somebody is shown; novelty: mean of -log2(share of users who have the item), bits",
            one_of=("recall", "ndcg", "exposure", "coverage", "novelty"),
        ),
        K,
        field("value", pa.float64(), "on test, epoch chosen on valid; null where n is 0", nullable=True, low=0),
    ]
)  # fmt: skip

TESTS = pa.schema(
    [
        RUN[0],
        *PROTOCOL,
        *(field(f"{f.name}_{side}", f.type, f"run {side}: {f.metadata[b'doc'].decode()}")
          for side in "ab" for f in (MODEL, FEATURE_SET, ABLATION)),
        RESULTS.field("metric"),
        K,
        field("seeds", pa.int32(), "runs of each over which a user's figure was averaged before the test", low=1),
        field("n", pa.int64(), "test users, the pairs of the test", low=1),
        field("mean_a", pa.float64(), "of run a, on test"),
        field("mean_b", pa.float64(), "of run b, on test"),
        field("difference", pa.float64(), "mean_a - mean_b"),
        field("low", pa.float64(), "95 % interval of the difference: paired bootstrap over users, percentiles"),
        field("high", pa.float64(), "its other end"),
        field("p", pa.float64(), "two-sided, of the paired bootstrap", low=0, high=1),
        field("p_holm", pa.float64(), "p corrected (Holm) for all rows of this table", low=0, high=1),
    ]
)  # fmt: skip

RELEASED_ITEMS = pa.schema(
    [f for f in ITEMS if f.name not in ("image_urls", "tokens", "extra")]
    + [
        field(
            "image_status", pa.string(), "how fetching ended; null where nobody tried", nullable=True,
            one_of=IMAGE_STATUSES,
        ),
        field("image_url", pa.string(), "public address of the picture; empty where there is none"),
        field("image_sha256", pa.string(), "hex, of the picture's bytes as fetched; empty where none came"),
        field("image_phash", pa.uint64(), "64-bit perceptual hash; null unless ok", nullable=True),
    ]
)  # fmt: skip


def features(width: int) -> pa.Schema:
    """Return the schema of a feature set of `width` dimensions."""
    return pa.schema(
        [
            ITEM_ID,
            ASIN,
            field(
                "has_image", pa.bool_(), "an image went into the vector; null where unknown (imported)", nullable=True
            ),
            field("has_text", pa.bool_(), "a text went into the vector; null where unknown (imported)", nullable=True),
            field("vector", vector(width), f"float32[{width}], not normalised; finite"),
        ]
    )


def features_half(width: int) -> pa.Schema:
    """Return the schema of a feature set's twin in half precision."""
    kind = pa.list_(pa.field("element", pa.float16(), nullable=False), width)
    full = features(width)
    return full.set(len(full) - 1, field("vector", kind, f"float16[{width}], rounded from float32; finite"))


def trials(settings: Sequence[str]) -> pa.Schema:
    """Return the schema of a sweep's trials; `settings` are the keys of `train` that it tried."""
    recall = "Recall@20, mean over the trial's trainings"
    return pa.schema(
        [
            field("trial", pa.int32(), "number, from 0", low=0),
            field("state", pa.string(), "how it ended", one_of=("complete", "pruned", "failed")),
            *(field(name, pa.float64(), f"train.{name} of the trial") for name in settings),
            field("epochs", pa.int32(), "trained, all seeds together", low=0),
            field(
                "valid", pa.float64(), f"valid {recall}; of a pruned one its best so far; null if it failed",
                nullable=True, low=0, high=1,
            ),
            field(
                "test", pa.float64(), f"test {recall}; null unless `sweep.test_selected` asked", nullable=True, low=0,
                high=1,
            ),
            field("reason", pa.string(), "why it failed; else empty"),
        ]
    )  # fmt: skip


def item_embeddings(width: int) -> pa.Schema:
    """Return the schema of a recommender's item vectors: score = dot product with the user's."""
    return pa.schema([ITEM_ID, ASIN, field("vector", vector(width), f"float32[{width}]; finite")])


def ranking(k: int) -> pa.DataType:
    """Return the type of a list of `k` items, best first."""
    return pa.list_(pa.field("element", pa.int32(), nullable=False), k)


def rankings(k: int) -> pa.Schema:
    """Return the schema of what each test user was shown."""
    return pa.schema([USER_ID, field("items", ranking(k), f"item_id[{k}], best first; -1 where the catalogue ran out")])


def user_embeddings(width: int) -> pa.Schema:
    """Return the schema of a recommender's user vectors."""
    return pa.schema([USER_ID, USERS.field("user"), field("vector", vector(width), f"float32[{width}]; finite")])


def check(table: pa.Table, schema: pa.Schema, where: str = "table") -> pa.Table:
    """Return `table` with the schema's columns, order and metadata, or raise what is wrong with it.

    Args:
        table: any Arrow table; a column may be chunked.
        schema: one of this module's.
        where: what to call the table in the error, usually its path.

    Raises:
        ContractError: a column is missing, unexpected, of another type, null, out of range or not finite.
    """
    missing = [n for n in schema.names if n not in table.column_names]
    extra = [n for n in table.column_names if n not in schema.names]
    if missing or extra:
        wrong = [f"has no column '{n}'" for n in missing] + [f"has an unexpected column '{n}'" for n in extra]
        raise ContractError(f"{where} {' and '.join(wrong)}; expected {', '.join(schema.names)}")
    for f in schema:
        column = table.column(f.name)
        if column.type != f.type:
            raise ContractError(f"{where}: column '{f.name}' is {column.type}, expected {f.type}")
        bad = _first_bad_row(column, f)
        if bad:
            raise ContractError(f"{where}: column '{f.name}', row {bad[0]}: {bad[1]}")
    kept = dict(schema.metadata or {}) | dict(table.schema.metadata or {})
    return table.select(schema.names).cast(schema).replace_schema_metadata(kept or None)


def _first_bad_row(column: pa.ChunkedArray, f: pa.Field) -> tuple[int, str] | None:
    """Return the number and the fault of the first row of `column` that breaks `f`, or None."""
    if not f.nullable and (row := _first(pc.is_null(column))) is not None:
        return row, "is null"
    meta = {k.decode(): v.decode() for k, v in (f.metadata or {}).items()}
    if pa.types.is_fixed_size_list(f.type):
        return _first_not_finite(column, f.type.list_size)
    if pa.types.is_floating(f.type) and (row := _first(pc.invert(pc.is_finite(column)))) is not None:
        return row, f"{column[row]} is not finite"
    for name, outside in (("low", pc.less), ("high", pc.greater)):
        if name in meta and (row := _first(outside(column, json.loads(meta[name])))) is not None:
            return row, f"{column[row]} is {'below' if name == 'low' else 'above'} {meta[name]}"
    if "one_of" in meta:
        allowed = json.loads(meta["one_of"])
        row = _first(pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, value_set=pa.array(allowed, f.type)))))
        if row is not None:
            return row, f"{column[row].as_py()!r} is none of {', '.join(allowed)}"
    return None


def _first(mask: Any) -> int | None:
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row


def _first_not_finite(column: pa.ChunkedArray, width: int) -> tuple[int, str] | None:
    start = 0
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        bad = ~np.isfinite(values).all(axis=1)
        if len(values) != len(chunk):
            return start, "is null"
        if bad.any():
            row = int(bad.argmax())
            return start + row, f"element {int((~np.isfinite(values[row])).argmax())} is not finite"
        start += len(chunk)
    return None
