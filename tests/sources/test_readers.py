"""Readers of raw formats: fields read, lines refused, and no evaluation of input."""

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from processes import started

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import json_lines, json_object
from alignrec.pipeline.io.sql import WHITE_SPACE, identifier_of, open_database, strip_sql
from alignrec.pipeline.sources import mmrec
from alignrec.pipeline.sources.amazon import Reader2014, Reader2018, Reader2023
from alignrec.pipeline.sources.base import Reader
from alignrec.pipeline.sources.tabular import Tabular, TabularSource

amazon2014, amazon2018, amazon2023, numbered = Reader2014(), Reader2018(), Reader2023(), mmrec.MmrecReader()


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# --- metadata


def test_2014_reads_python_literals() -> None:
    line = b"""{'asin': '0123456789', 'title': "Bob's", 'price': 1.5, 'categories': [['A', 'B'], ['C', 'D', 'E']],
        'imUrl': 'http://e/x.jpg', 'related': {'also_bought': ['B000000000']}}""".replace(b"\n", b"")
    assert amazon2014.key(line) == "0123456789"
    record = amazon2014.parse(line)
    assert amazon2014.name(record) == "0123456789"
    kept = {"price": "1.5", "categories": '[["A","B"],["C","D","E"]]', "related": '{"also_bought":["B000000000"]}'}
    assert amazon2014.product(record) == ("Bob's", "", ["C", "D", "E"], "", ["http://e/x.jpg"], kept)


@pytest.mark.parametrize(
    ("line", "title"),
    [
        (b"""{'title': "it's", 'asin': 'A'}""", "it's"),
        (b"""{'title': '5" wide', 'b': "it's"}""", '5" wide'),
        (b"{'title': '' 'two' \"'s\"}", "two's"),
        (b"{'title': '''\"a\"'''}", '"a"'),
        (b"{'title': 99999999999999999999}", 99999999999999999999),
    ],
)
def test_2014_reads_what_python_reads(line: bytes, title: object) -> None:
    assert amazon2014.parse(line)["title"] == title


EVIL = [
    "__import__('os').system('touch {mark}')",
    "{{'asin': open('{mark}', 'w')}}",
    "{{'asin': 'A', 'title': (lambda: open('{mark}', 'w'))()}}",
    "{{**open('{mark}', 'w').__dict__}}",
    "[print(x) for x in open('{mark}', 'w')]",
    "{{'a': true}}",
]


@pytest.mark.parametrize("code", EVIL)
def test_2014_runs_nothing(tmp_path: Path, code: str) -> None:
    with pytest.raises(ValueError, match="not a Python literal"):
        amazon2014.parse(code.format(mark=tmp_path / "mark").encode())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", [b"[" * 5000, b"-" * 9000 + b"1", b"(" * 99 + b"1", b"9" * 9999, b"{'a': \x00}", b"\xff"]
)
def test_2014_survives_lines_that_break_parsers(line: bytes) -> None:
    with pytest.raises(ValueError, match="not"):
        amazon2014.parse(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("asin", "title", "brand", "category", "categories", "description", "imUrl", "imageURL", "imageURLHighRes")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1).filter(lambda r: "inf" not in repr(r)))
def test_2014_reads_back_what_python_printed(record: dict[str, object]) -> None:
    assert amazon2014.parse(repr(record).encode("utf-8", "surrogatepass")) == record


def test_fields_that_json_has_no_type_for_are_kept_too() -> None:
    line = rb"{'asin': 'A', 'price': (1, None), 'sets': {'b', 'a'}, 'raw': b'\xff', 'half': '\ud800', 3: 1, 'no': ''}"
    record = amazon2014.parse(line)
    kept = {"price": "[1,null]", "sets": '["a","b"]', "raw": "\"b'\\\\xff'\"", "half": '"?"', "3": "1"}
    assert amazon2014.product(record).extra == kept
    assert [orjson.loads(v) for v in kept.values()]


def test_2018_prefers_large_pictures_and_drops_titles_that_are_scripts() -> None:
    urls = {"imageURL": ["http://e/s.jpg", "http://e/l.jpg"], "imageURLHighRes": ["http://e/l.jpg"]}
    record = {"asin": "B1", "title": "var aPageStart = (new Date()).getTime();", "brand": "X", "category": ["A", "B"]}
    line = orjson.dumps(record | {"description": ["one", "", "two"]} | urls)
    assert amazon2018.key(line) == "B1"
    actual = amazon2018.product(amazon2018.parse(line))
    assert actual == ("", "X", ["A", "B"], "one two", ["http://e/l.jpg", "http://e/s.jpg"], {})


# --- ratings


def rows(sql: str) -> list[tuple[object, ...]]:
    return duckdb.sql(sql).fetchall()


def test_reviews_as_json_lines(tmp_path: Path) -> None:
    good = {"reviewerID": "U", "asin": "A", "overall": 4.0, "unixReviewTime": 7, "reviewText": "x"}
    path = write(tmp_path / "it's.json.gz", f'{json.dumps(good)}\nnonsense\n{{"asin": "B", "overall": "NaN?"}}\n')
    assert rows(amazon2014.ratings({"reviews": path})) == [("U", "A", 4.0, 7), (None,) * 4, (None, "B", None, None)]


@pytest.mark.parametrize(("reader", "line"), [(amazon2014, "U,A,4.0,7"), (amazon2018, "A,U,4.0,7")])
@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
def test_ratings_as_csv_have_each_vintages_order(tmp_path: Path, reader: Reader, line: str, name: str) -> None:
    path = write(tmp_path / name, f"{line}\n,,,\n")
    assert rows(reader.ratings({"reviews": path})) == [("U", "A", 4.0, 7), (None,) * 4]


HEADER = "userID\titemID\trating\ttimestamp\tx_label\n"


def test_inter_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.inter.gz", HEADER + "3\t5\t1.0\t9\t2\nx\t5\t1.0\t9\t2\n")
    assert rows(numbered.ratings({"interactions": path})) == [(3, 5, 1.0, 9, 2), (None, 5, 1.0, 9, 2)]


def test_binary_columns_of_parquet_are_texts_or_refused_by_name(tmp_path: Path) -> None:
    raw = pa.array([b"thing 1", None, "\u00e9".encode()], pa.binary())
    columns = {
        "plain": raw,
        "large": raw.cast(pa.large_binary()),
        "fixed": pa.array([b"ab", b"cd", None], pa.binary(2)),
        "list": pa.array([[b"a", b"b"], None, []], pa.list_(pa.binary())),
        "fixed list": pa.array([[b"a"], [b"b"], None], pa.list_(pa.binary(), 1)),
        "struct": pa.array([{"x": b"a"}, None, {"x": b"b"}]),
    }
    expected = {
        name: json.loads(json.dumps(column.to_pylist(), default=bytes.decode)) for name, column in columns.items()
    }
    columns["map"] = pa.array([[(b"a", b"b")], None, []], pa.map_(pa.binary(), pa.binary()))
    expected["map"] = [[{"key": "a", "value": "b"}], None, []]
    columns["dictionary"], expected["dictionary"] = raw.dictionary_encode(), expected["plain"]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    read = [json_object(line) for line in json_lines(tmp_path / "x.parquet")]
    assert {name: [row[name] for row in read] for name in columns} == expected

    pq.write_table(pa.table({"id": [1, 2], "hash": [b"a", b"\xff"]}), tmp_path / "x.parquet")
    first, second = json_lines(tmp_path / "x.parquet")
    assert json_object(first) == {"id": 1, "hash": "a"}
    with pytest.raises(ValueError, match="not UTF-8: column 'hash'"):
        json_object(second)


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl", "items.jsonl.gz"])
def test_item_file_as_csv_or_json_lines(tmp_path: Path, name: str) -> None:
    records = [{"itemID": 1, "asin": "B", "title": 'a, "b"'}, {"itemID": 0, "asin": "A", "title": "c"}]
    csv = 'itemID,asin,title\n1,B,"a, ""b"""\n0,A,c\n'
    path = write(tmp_path / name, csv if name.endswith("csv") else "".join(f"{json.dumps(r)}\n" for r in records))
    lines = list(numbered.lines(path))
    assert [numbered.key(line) for line in lines] == ["1", "0"]
    assert [numbered.product(numbered.parse(line)).title for line in lines] == ['a, "b"', "c"]
    assert mmrec.read_asins(path, 3) == ["A", "B", "2"]
    for second, fault in (("0,B", "itemID 0 occurs twice"), ("1,A", "asin A belongs to several"), ("1,2", "asin 2")):
        twice = write(tmp_path / "twice.csv", f"itemID,asin\n0,A\n{second}\n")
        with pytest.raises(UserError, match=fault):
            mmrec.read_asins(twice, 3)


# --- 2023


def test_2023_fields() -> None:
    main = {"variant": "MAIN", "thumb": "http://e/t", "large": "http://e/l", "hi_res": None}
    kept = {"store": "S", "details": {"Brand": "B"}, "features": ["f"]}
    record = {"parent_asin": "B1", "title": "t", "description": ["d"], "categories": ["c"]} | kept
    line = orjson.dumps(record | {"images": [{"variant": "PT01", "hi_res": "http://e/2"}, main]})
    assert amazon2023.key(line) == amazon2023.name(amazon2023.parse(line)) == "B1"
    actual = amazon2023.product(amazon2023.parse(line))
    extra = {name: orjson.dumps(value).decode() for name, value in kept.items()}
    assert actual == ("t", "B", ["c"], "f d", ["http://e/l", "http://e/t", "http://e/2"], extra)


def test_2023_reviews_and_ratings_say_the_same(tmp_path: Path) -> None:
    review = {"user_id": "U", "asin": "variant", "parent_asin": "A", "rating": 4.0, "timestamp": 1588687728923}
    jsonl = write(tmp_path / "r.jsonl.gz", json.dumps(review) + "\n")
    csv = write(tmp_path / "r.csv.gz", "user_id,parent_asin,rating,timestamp\nU,A,4.0,1588687728923\n")
    want = [("U", "A", 4.0, 1588687728)]
    assert rows(amazon2023.ratings({"reviews": jsonl})) == rows(amazon2023.ratings({"reviews": csv})) == want


# --- files of a user


def tabular(item_columns: dict[str, str] | None = None, **columns: str) -> Tabular:
    given = {"kind": "tabular", "interactions": "i", "items": "m", "columns": columns}
    return Tabular(TabularSource.model_validate(given | {"item_columns": item_columns or {}}))


def save(path: Path, table: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
        return path
    frame, is_csv = pd.DataFrame(table), ".csv" in path.suffixes
    return write(path, frame.to_csv(index=False) if is_csv else frame.to_json(orient="records", lines=True))


@pytest.mark.parametrize("name", ["i.parquet", "i.csv", "i.csv.gz", "i.jsonl"])
def test_tabular_interactions_in_any_format(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, {"who": [7, 8], "what": ["a, b", "c"], "stars": [1.5, 5.0], "at": [100, 200]})
    reader = tabular(user="who", item="what", rating="stars", timestamp="at")
    assert rows(reader.ratings({"interactions": path})) == [("7", "a, b", 1.5, 100), ("8", "c", 5.0, 200)]


def test_tabular_reads_dates_milliseconds_and_a_split(tmp_path: Path) -> None:
    dates = {"user": ["u", ""], "item": ["a", "b"], "timestamp": ["1970-01-02T00:00:00Z", "x"]}
    path = save(tmp_path / "i.csv", dates)
    assert rows(tabular().ratings({"interactions": path})) == [("u", "a", None, 86400), (None, "b", None, None)]
    save(path, {"user": ["u"], "item": ["a"], "timestamp": [1588687728923]})
    assert rows(tabular().ratings({"interactions": path})) == [("u", "a", None, 1588687728)]
    save(path, {"user": ["u", "u"], "item": ["a", "b"], "split": ["Train", "TEST"]})
    assert [row[4] for row in rows(tabular().ratings({"interactions": path}))] == ["train", "test"]


ABSENT = {
    "required": ({}, "i.csv", {"who": ["u"], "item": ["a"]}, "'user'; it has who, item; .*`columns`"),
    "renamed": ({"rating": "stars"}, "i.csv", {"user": ["u"], "item": ["a"]}, "'stars'; it has user, item; .*rating"),
    "of items": ({"title": "name"}, "m.jsonl", {"item": ["a"], "titel": ["x"]}, "'name'; it has item, titel; .*title"),
}


@pytest.mark.parametrize(("columns", "name", "table", "said"), ABSENT.values(), ids=ABSENT)
def test_tabular_names_the_column_that_is_not_there(
    tmp_path: Path, columns: dict[str, str], name: str, table: dict[str, list[object]], said: str
) -> None:
    path = save(tmp_path / name, table)
    with pytest.raises(UserError, match=said):
        tabular(**columns).ratings({"interactions": path}) if name[0] == "i" else tabular(**columns).metadata(
            {"metadata": path}
        )


def test_tabular_finds_a_key_that_only_a_late_line_of_json_has(tmp_path: Path) -> None:
    lines = ['{"item": "a"}'] * 1500 + ['{"item": "b", "name": "x"}']
    path = write(tmp_path / "m.jsonl", "\n".join(lines))
    assert tabular(title="name").metadata({"metadata": path}) == path


@pytest.mark.parametrize("name", ["i.csv", "i.csv.gz", "i.jsonl", "i.tsv"])
def test_tabular_refuses_an_empty_file_in_one_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "")
    for read, role in ((tabular().ratings, "interactions"), (tabular().metadata, "metadata")):
        with pytest.raises(UserError, match="the file is empty"):
            read({role: path})


def test_tabular_refuses_a_column_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    table = {"user": ["u"], "item": ["a"], "at": ["13/31/20"], "rating": ["good"]}
    path = save(tmp_path / "i.csv", table)
    with pytest.raises(UserError, match="column 'rating' holds 'good'"):
        tabular().ratings({"interactions": path})
    with pytest.raises(UserError, match="column 'at' holds '13/31/20'"):
        tabular(timestamp="at", rating="item").ratings({"interactions": save(path, table | {"item": [1]})})


def test_tabular_reads_decimal_commas_and_no_thousands(tmp_path: Path) -> None:
    path = write(tmp_path / "i.csv", "user;item;rating\nu;a;4,5\nv;a;1,000\nw;a;3\n")
    assert [row[2] for row in rows(tabular().ratings({"interactions": path}))] == [4.5, None, 3.0]


@pytest.mark.parametrize(("name", "delimiter"), [("i.tsv", "\t"), ("i.csv", ";"), ("i.csv", "\t"), ("i.tsv.gz", "\t")])
def test_tabular_reads_other_delimiters_and_a_byte_order_mark(tmp_path: Path, name: str, delimiter: str) -> None:
    path = write(tmp_path / name, "\ufeffitem,user,title\na|b,u,x\n".replace(",", delimiter))
    assert rows(tabular().ratings({"interactions": path})) == [("u", "a|b", None, None)]
    (line,) = tabular().lines(path)
    assert orjson.loads(line) == {"item": "a|b", "user": "u", "title": "x"}


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl.gz"])
def test_tabular_items_in_any_format(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, {"sku": ["5", "6"], "title": ["x", "y"], "categories": ["A|B", ""]})
    reader = tabular(item="sku")
    records = [reader.parse(line) for line in reader.lines(path)]
    assert [reader.name(r) for r in records] == ["5", "6"]
    assert reader.product(records[0])[:3] == ("x", "", ["A", "B"])


@pytest.mark.parametrize(("categories", "read"), [(7, ["7"]), ([7, "Home", None, True, 1.5], ["7", "Home", "1.5"])])
def test_numbers_in_categories_are_texts(categories: object, read: list[str]) -> None:
    assert tabular().product({"item": "a", "title": 3, "categories": categories})[:3] == ("3", "", read)


def test_columns_of_text_are_joined_to_the_description_and_must_be_there(tmp_path: Path) -> None:
    given = {"kind": "tabular", "interactions": "r.csv", "columns": {"description": "plot"}, "text": ["review", "tags"]}
    reader = Tabular(TabularSource.model_validate(given))
    record = {"item": "a", "plot": "A man walks. Far", "review": "fine", "tags": ["slow", "twist"], "year": 1990}
    product = reader.product(record)
    assert product.description == "A man walks. Far. fine. slow, twist."
    assert set(product.extra) == {"year"}
    with pytest.raises(UserError, match=r"'text'.*'tags'"):
        reader.metadata(
            {"metadata": write(tmp_path / "m.jsonl", '{"item": "a", "plot": "x", "review": "y", "tag": ""}')}
        )


# --- identifiers are normalised equally by SQL and Python, for all of Unicode and numbers of any size


# DuckDB takes a value that it is given as UTF-8, where surrogates are none
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from(f"{WHITE_SPACE}\u200b\ufeff\0aé𝒳"))
DB = duckdb.connect()


@given(TEXT)
@example("A\u00a0")
@example("A\t")
@example("\u3000A\u3000")
@example("\u3000")
@example(" A b ")
@example("'A\x1f")
@example("5.0")
def test_sql_and_python_name_the_same(text: str) -> None:
    ((in_sql,),) = DB.execute(f"SELECT {strip_sql('t')} FROM (SELECT ?::VARCHAR AS t)", [text]).fetchall()
    assert in_sql == identifier_of(text)


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_whole_floats_are_integers_and_nan_is_missing(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, {"user": [0.0, 1.0, 2.0], "item": [5.0, float("nan"), 1e6]})
    reader = tabular()
    found = rows(f"SELECT user, item FROM ({reader.ratings({'interactions': path})})")
    assert found == [("0", "5"), ("1", None), ("2", "1000000")]
    assert [reader.name(reader.parse(line)) for line in reader.lines(path)] == ["5", None, "1000000"]
    texts = save(path, {"user": ["0.0", "1.0", "2.0"], "item": ["5.0", " 1.0", None]})
    found = rows(f"SELECT user, item FROM ({reader.ratings({'interactions': texts})})")
    assert found == [("0.0", "5.0"), ("1.0", "1.0"), ("2.0", None)]


def test_identifiers_of_json_lines_are_texts_and_whole_numbers_of_any_size(tmp_path: Path) -> None:
    values = ['"x"', "123456789012345678901234567890", "1.5", "5.0", "5", "true", "null", '"\\u00e9"', '"5.0"']
    path = write(tmp_path / "x.jsonl", "".join(f'{{"user": "u", "item": {value}}}\n' for value in values))
    found = [item for (item,) in rows(f"SELECT item FROM ({tabular().ratings({'interactions': path})})")]
    assert found == ["x", values[1], None, "5", "5", "true", None, "\u00e9", "5.0"]


@pytest.mark.parametrize("number", [1.5, float("inf"), 2.0**53, np.float32(2**24)])
def test_other_floats_are_no_identifiers(tmp_path: Path, number: float) -> None:
    path = save(tmp_path / "x.parquet", {"user": ["u", "v"], "item": np.array([7, number], type(number))})
    with pytest.raises(UserError, match=r"column 'item' holds .*; identifiers are texts or whole numbers"):
        tabular().ratings({"interactions": path})
    if np.isfinite(number) and not isinstance(number, np.float32):
        with pytest.raises(ValueError, match="is neither a text nor a whole number"):
            tabular().name({"item": number})


def test_parquet_of_the_hub_is_read_as_the_published_files(tmp_path: Path) -> None:
    images = {"hi_res": [None, "http://e/2.jpg"], "large": ["http://e/1.jpg", None], "variant": ["PT01", "MAIN"]}
    item = {
        "parent_asin": "B1",
        "title": "Cap",
        "details": '{"Brand": "Acme"}',
        "images": images,
        "categories": ["Hats"],
    }
    pq.write_table(pa.Table.from_pylist([item]), tmp_path / "meta.parquet")
    reader = Reader2023()
    (line,) = reader.lines(tmp_path / "meta.parquet")
    product = reader.product(reader.parse(line))
    assert (reader.key(line), product.title, product.brand) == ("B1", "Cap", "Acme")
    assert product.image_urls == ["http://e/2.jpg", "http://e/1.jpg"]


def print_read(*paths: Path) -> None:
    for path in paths:
        with open_database() as db:
            print(db.execute(tabular().ratings({"interactions": path})).fetchall())


def test_dates_are_utc_wherever_the_machine_is(tmp_path: Path) -> None:
    dates = ["2024-03-10", "2024-03-10 02:30:00", "2024-03-10T02:30:00Z", "2024-03-10 02:30:00+09"]
    seconds = [1710028800, 1710037800, 1710037800, 1710005400]
    rows = list(zip("wxyz", dates, strict=True))
    text = write(tmp_path / "r.csv", "user,item,timestamp\n" + "".join(f"a,{i},{d}\n" for i, d in rows))
    typed = tmp_path / "r.parquet"
    times = pa.array([second * 10**6 for second in seconds], pa.timestamp("us"))
    pq.write_table(pa.table({"user": ["a"] * 4, "item": list("wxyz"), "timestamp": times}), typed)
    expected = f"{[('a', item, None, at) for item, at in zip('wxyz', seconds, strict=True)]}\n" * 2
    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        assert started(print_read, text, typed, TZ=zone).communicate() == (expected, "")
