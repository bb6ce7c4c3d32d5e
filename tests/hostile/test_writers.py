"""Tables as pandas, Polars, Spark, DuckDB and R write them, by seed, against a reader in plain Python."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignrec.pipeline.io.sql import open_database
from alignrec.pipeline.sources.tabular import Tabular, TabularSource
from alignrec.pipeline.vectors.base import match_file

SEEDS = 200
FIRST_SECOND = 1_500_000_000
BINARY = [pa.binary(), pa.large_binary(), pa.binary_view()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), *BINARY]
NUMBERS = [pa.int32(), pa.int64(), pa.uint16(), pa.float64(), pa.float32(), pa.decimal128(20, 0)]
RATINGS = [pa.float32(), pa.float64(), pa.int8(), pa.decimal128(3, 1), pa.string(), pa.null()]
ZONES = [None, "UTC", "Asia/Kolkata", "+05:30"]
INDEXES = ["", "index", "Unnamed: 0", "__index_level_0__", "level"]


# --- writing


def pick(rng: np.random.Generator, values: Sequence[Any]) -> Any:
    return values[rng.integers(len(values))]


def with_gaps(rng: np.random.Generator, values: Sequence[Any]) -> list[Any]:
    share = pick(rng, [0, 0.2])
    return [None if rng.random() < share else value for value in values]


def identifiers(rng: np.random.Generator, values: list[int]) -> pa.Array:
    given = with_gaps(rng, values)
    if rng.random() < 0.5:
        kind = pick(rng, NUMBERS)
        is_nan = pa.types.is_floating(kind) and rng.random() < 0.5
        return pa.array(
            [float("nan") if is_nan and one is None else one for one in given], pa.float64() if is_nan else kind
        )
    form = pick(rng, ["{}", "x{}", " é{} ", "{}.0"])
    texts = [None if one is None else form.format(one) for one in given]
    return as_type(texts, pick(rng, TEXTS))


def as_type(texts: list[str | None], kind: pa.DataType) -> pa.Array:
    array = pa.array(texts, pa.string())
    return array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)


def texts(rng: np.random.Generator, n: int) -> pa.Array:
    words = with_gaps(rng, [f"word{rng.integers(9)} é" for _ in range(n)])
    kind = pick(rng, TEXTS)
    shape = pick(rng, ["plain", "plain", "list", "nested", "struct", "map", "null"])
    if shape == "plain":
        return as_type(words, kind)
    if shape == "null":
        return pa.nulls(n)
    inner = pa.string() if pa.types.is_dictionary(kind) or kind in (pa.string_view(), pa.binary_view()) else kind
    given = [None if one is None else one.encode() for one in words] if inner in BINARY else words
    lists = [None if one is None else [one, None, one] for one in given]
    if shape == "list":
        return pa.array(lists, pick(rng, [pa.list_(inner), pa.large_list(inner)]))
    if shape == "nested":
        return pa.array([one and [one, [], one[:1]] for one in lists], pa.list_(pa.list_(inner)))
    if shape == "struct":
        return pa.array([None if one is None else {"en": one} for one in given], pa.struct({"en": inner}))
    return pa.array([None if one is None else [("en", one)] for one in given], pa.map_(pa.string(), inner))


def times(rng: np.random.Generator, n: int) -> pa.Array:
    seconds = [FIRST_SECOND + int(second) for second in rng.integers(0, 10**8, n)]
    form = pick(rng, ["number", "timestamp", "timestamp", "date", "text"])
    if form == "number":
        factor = pick(rng, [1, 10**3, 10**6, 10**9])
        return pa.array(with_gaps(rng, [second * factor for second in seconds]), pa.int64())
    moments = [datetime.fromtimestamp(second, UTC) for second in seconds]
    if form == "timestamp":
        unit, zone = pick(rng, ["s", "ms", "us", "ns"]), pick(rng, ZONES)
        return pa.array(with_gaps(rng, moments), pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone))
    if form == "date":
        return pa.array(with_gaps(rng, [moment.date() for moment in moments]), pa.date32())
    return pa.array(with_gaps(rng, [moment.isoformat() for moment in moments]), pa.string())


def ratings(rng: np.random.Generator, n: int) -> pa.Array:
    kind = pick(rng, RATINGS)
    if pa.types.is_null(kind):
        return pa.nulls(n)
    given = with_gaps(rng, rng.integers(1, 6, n).tolist())
    if pa.types.is_string(kind):
        return pa.array([None if one is None else f"{one},5" for one in given])
    if pa.types.is_decimal(kind):
        return pa.array([None if one is None else Decimal(one) for one in given], kind)
    return pa.array(given, pa.int64()).cast(kind)


def write(rng: np.random.Generator, path: Path, columns: dict[str, pa.Array]) -> Path:
    n = len(next(iter(columns.values())))
    if rng.random() < 0.4:
        columns = {pick(rng, INDEXES): pa.array(rng.permutation(n)), **columns}
    store = bool(rng.random() < 0.5)  # Spark and R store no schema of Arrow
    pq.write_table(pa.table(columns), path, row_group_size=int(pick(rng, [3, 5000])), store_schema=store)
    return path


# --- reading in plain Python


def plain_id(value: Any) -> str | None:
    if isinstance(value, float):
        return None if value != value else str(int(value))
    text = value.decode() if isinstance(value, bytes) else str("" if value is None else value)
    return text.strip() or None


def plain_rating(value: Any) -> float | None:
    return None if value is None else float(str(value).replace(",", "."))


def plain_seconds(value: Any) -> int | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, int):
        while value >= 10**11:
            value //= 1000
        return value
    if type(value) is date:
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value is None:
        return None
    return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def flat(value: Any) -> Iterator[str]:
    """Yield the texts of nested lists; of objects and maps, whose entries are pairs, none."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, list):
            yield from flat(part)
        elif isinstance(part, (str, bytes)):
            yield part.decode() if isinstance(part, bytes) else part


def plain_rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path, partitioning=None).to_pylist()


# --- comparing


def tabular(path: Path) -> Tabular:
    return Tabular(TabularSource(kind="tabular", interactions=str(path), items=str(path), timestamps="unix"))


def try_interactions(rng: np.random.Generator, folder: Path) -> None:
    n = int(rng.integers(1, 12))
    columns = {name: identifiers(rng, rng.integers(0, 99, n).tolist()) for name in ("user", "item")}
    columns |= {"rating": ratings(rng, n), "timestamp": times(rng, n)}
    path = write(rng, folder / "i.parquet", columns)
    with open_database() as db:
        found = db.execute(tabular(path).ratings({"interactions": path})).fetchall()
    expected = [
        (plain_id(row["user"]), plain_id(row["item"]), plain_rating(row["rating"]), plain_seconds(row["timestamp"]))
        for row in plain_rows(path)
    ]
    assert found == expected


def try_items(rng: np.random.Generator, folder: Path) -> None:
    n = int(rng.integers(1, 12))
    columns = {"item": identifiers(rng, list(range(n)))}
    columns |= {name: texts(rng, n) for name in ("title", "brand", "categories", "description")}
    path = write(rng, folder / "m.parquet", columns)
    reader = tabular(path)
    found = list(map(reader.parse, reader.lines(path)))
    for record, row in zip(found, plain_rows(path), strict=True):
        product = reader.product(record)
        assert reader.name(record) == plain_id(row["item"])
        for name in ("title", "brand", "description"):
            assert getattr(product, name) == " ".join(flat(row[name])), name
        assert product.categories == [*flat(row["categories"])]


def try_features(rng: np.random.Generator, folder: Path) -> None:
    n, width = int(rng.integers(2, 12)), int(rng.integers(2, 9))
    vectors = rng.standard_normal((n, width)).astype(np.float32)
    asins = [f"é{number}" for number in range(n)]
    order = rng.permutation(n)
    kind = pick(rng, [kind for kind in TEXTS if kind not in BINARY])
    columns = {"asin": as_type([asins[row] for row in order], kind)}
    if rng.random() < 0.5:
        form = pick(rng, ["v{}", "{}", "emb_{:03}", "V[{}]"])
        numbers = pick(rng, [pa.float32(), pa.float64()])
        columns |= {form.format(i): pa.array(vectors[order, i]).cast(numbers) for i in range(width)}
    else:
        lists = pick(rng, [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), width)])
        columns["v"] = pa.array(vectors[order].tolist(), lists)
    path = write(rng, folder / "f.parquet", columns)
    assert np.array_equal(match_file(path, asins).rows(0, n), vectors)


@pytest.mark.parametrize("attempt", [try_interactions, try_items, try_features])
def test_tables_of_any_writer_are_read_as_plain_python_reads_them(
    attempt: Callable[[np.random.Generator, Path], None], tmp_path: Path
) -> None:
    for seed in range(SEEDS):
        try:
            attempt(np.random.default_rng(seed), tmp_path)
        except Exception as e:
            e.add_note(f"seed {seed}")
            raise
