"""Hostile interactions, item files and texts: read in linear time, rejected in part, or refused in one line."""

import bz2
import gzip
import lzma
import os
import re
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec

from alignrec.pipeline.dataset.items import merge_products
from alignrec.pipeline.dataset.products import Parsed, clean_text, parse_line, parse_lines
from alignrec.pipeline.dataset.split_tables import create_database
from alignrec.pipeline.images.access import NO_FILE, open_files
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io import sha256
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.io.text import MAX_LINE_BYTES, MAX_RAW_BYTES, RejectedRow, read_lines
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.amazon import Reader2018
from alignrec.pipeline.sources.base import Product
from alignrec.pipeline.sources.tabular import TabularSource
from alignrec.pipeline.vectors.base import match_file, open_vectors
from alignrec.pipeline.web.download import fetch_file

HEADER = "user,item,rating,timestamp\n"
ROWS = f"{HEADER}a,x,5,10\na,y,4,20\n"
BOM = b"\xef\xbb\xbf"
LINE = '{"user":"a","item":"x","rating":5,"timestamp":10}\n'


SIZE = 100_000  # characters: quadratic time would be minutes
TEXTS = {
    "scripts that do not end": "<script ",
    "scripts": "<script>",
    "styles that do not end": "<style ",
    "ends of styles": "</style ",
    "tags that do not end": "<a ",
    "ends of tags": "</a ",
    "comments": "<!--",
    "attributes": 'a="b" ',
    "attributes that do not end": 'a="',
    "names with colons": "a:",
    "names with hyphens": "a-",
    "quotes": "\"  '",
    "ampersands": "&",
    "entities": "&amp;lt;",
    "marks": "\u0301\u0316",
    "jamos": "\u1100\u1161",
    "blanks": " \u00a0",
}


def tabular(path: Path) -> list[tuple]:
    source = TabularSource(kind="tabular", interactions=str(path))
    with create_database(path.parent / "scratch", "256MiB") as db:  # which says in one line what DuckDB refuses
        return db.sql(source.reader().ratings({"interactions": path})).fetchall()


def written(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


READ = {
    "a byte order mark": ("r.csv", BOM + ROWS.encode(), [("a", "x", 5.0, 10), ("a", "y", 4.0, 20)]),
    "a byte order mark before JSON": ("r.jsonl", BOM + LINE.encode(), [("a", "x", 5.0, 10)]),
    "days of eight digits": ("r.csv", f"{HEADER}a,x,5,20240102\n", [("a", "x", 5.0, 1704153600)]),
    "seconds of eight digits": (
        *("r.csv", f"{HEADER}a,x,5,20240102\na,y,4,20241301\n"),
        [("a", "x", 5.0, 20240102), ("a", "y", 4.0, 20241301)],
    ),
    "a first line with NaN": (
        *("r.jsonl", '{"user":"a","item":"w","rating":NaN}\n' + LINE),
        [("a", "w", None, None), ("a", "x", 5.0, 10)],
    ),
    "white space of any kind": ("r.csv", f"{HEADER}a\u00a0,\u3000x\t,5,10\n", [("a", "x", 5.0, 10)]),
    "a number beyond 64 bits": (
        "r.jsonl",
        '{"user":18446744073709551616,"item":123456789012345678901234567890,"rating":5,"timestamp":10}\n',
        [("18446744073709551616", "123456789012345678901234567890", 5.0, 10)],
    ),
    "a value of 200 KB": ("r.csv", f"{HEADER}{'u' * 200_000},x,5,10\n", [("u" * 200_000, "x", 5.0, 10)]),
    "a rating beyond single precision": ("r.csv", f"{ROWS}a,z,1e39,30\n", None),
    "an endless date": ("r.csv", f"{ROWS}a,z,5,infinity\n", None),
    "a time beyond 64 bits": ("r.csv", f"{ROWS}a,z,5,{'9' * 30}\n", None),
    "lines that are not objects": ("r.jsonl", LINE + '5\nnull\n[1]\n"x"\n{\n', None),
}


@pytest.mark.parametrize(("name", "content", "expected"), READ.values(), ids=READ)
def test_interactions_are_read_and_what_cannot_be_is_null(
    tmp_path: Path, name: str, content: str | bytes, expected: list[tuple] | None
) -> None:
    rows = tabular(written(tmp_path / name, content))
    if expected is None:
        assert rows[0] == ("a", "x", 5.0, 10)
        assert None in rows[-1]  # which the stage counts as missing_value
    else:
        assert rows == expected


def test_a_gzip_that_is_cut_off_is_refused_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv.gz", ROWS * 100)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged or cut off"):
        tabular(path)


@pytest.mark.parametrize("place", range(5))
def test_a_footer_that_counts_other_rows_loses_none_in_silence(tmp_path: Path, place: int) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"user": ["u"] * 5000, "item": [f"i{i}" for i in range(5000)]}), path)
    data = path.read_bytes()
    count, fewer = b"\x90\x4e", b"\x80\x4e"  # 5000, 4992 as Thrift has them
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    places = [at for at in range(start, len(data) - 8) if data[at - 1] & 15 == 6 and data[at : at + 2] == count]
    assert len(places) == 5  # of the file, of two columns, of the row group, of the index
    at = places[place]
    path.write_bytes(data[:at] + fewer + data[at + 2 :])
    items = TabularSource(kind="tabular", interactions="r.csv", items=str(path))
    for count_rows in (lambda: len(tabular(path)), lambda: sum(1 for _ in items.reader().lines(path))):
        with suppress(UserError):
            assert count_rows() == 5000


def outcomes(source: Source, path: Path, wanted: set[str]) -> list:
    return list(parse_lines(source.reader().lines(path), source, wanted, workers=1))


def items_of(path: Path) -> Source:
    return TabularSource(kind="tabular", interactions="r.csv", items=str(path))


def test_a_quote_that_is_not_closed_costs_rows_and_no_memory(tmp_path: Path) -> None:
    row = b"y," + b"t" * 1022 + b"\n"
    path = written(tmp_path / "i.csv", b'item,title\nx,"\n' + row * (MAX_LINE_BYTES // len(row) + 2000) + b"z,end\n")
    rejected, *rest = outcomes(items_of(path), path, {"x", "z"})
    assert isinstance(rejected, RejectedRow)
    assert rejected.reason == "not CSV: row too long; is a quote not closed?"
    swallowed = [one for one in rest if isinstance(one, RejectedRow)]
    assert len(swallowed) >= MAX_LINE_BYTES // len(row)
    assert isinstance(rest[-1], Parsed)
    assert rest[-1].name == "z"


def test_a_text_far_longer_than_others_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    path, size = tmp_path / "i.parquet", 100 << 20
    short = [f"i{n}" for n in range(1000)]  # so that texts have 100 kB on average
    pq.write_table(pa.table({"item": ["x", *short], "title": ["a" * size, *short]}), path)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a row of 104,857,601 bytes, and 67,108,864 are the most"):
        list(items_of(path).reader().lines(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2  # Python has no copy of it


def test_a_line_of_gigabytes_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl.gz"
    with gzip.open(path, "wb", 1) as f:
        for _ in range(3 * MAX_LINE_BYTES >> 20):
            f.write(b" " * (1 << 20))
        f.write(b'\n{"item": "x", "title": "after"}\n')
    assert [len(line) for line in read_lines(path)] == [MAX_LINE_BYTES + 1, 32]
    rejected, parsed = outcomes(items_of(path), path, {"x"})
    assert (rejected.reason, len(rejected.raw)) == ("line too long", MAX_RAW_BYTES)
    assert (parsed.name, parsed.product.title) == ("x", "after")


@pytest.mark.parametrize("part", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("before", ["", "<a <x>"], ids=["text", "in a tag"])
def test_text_is_cleaned_in_time_that_grows_with_it(part: str, before: str) -> None:
    start = time.process_time()
    clean_text(before + part * (SIZE // len(part)))
    assert time.process_time() - start < 10


def test_lines_of_one_item_that_each_add_a_field_take_time_that_grows_with_them() -> None:
    start = time.process_time()
    item = Product("", "", [], "", [], {})
    for number in range(100_000):  # quadratic time would be hours
        item = merge_products(item, Product("", "", [], "", [], {f"field{number}": "1"}))
    assert len(item.extra) == 100_000
    assert time.process_time() - start < 10


REJECTS = {
    "too much text in parts": ({"description": ["t" * 1000] * 1100}, "text of more than 1,048,576 characters"),
    "a character of 5,000 digits": ({"title": f"&#{'9' * 5000};"}, "Exceeds the limit"),
}


@pytest.mark.parametrize(("fields", "reason"), REJECTS.values(), ids=REJECTS)
def test_an_item_that_cannot_be_cleaned_is_a_reject(fields: dict, reason: str) -> None:
    outcome = parse_line(1, orjson.dumps({"asin": "A", **fields}), Reader2018(), {"A"})
    assert isinstance(outcome, RejectedRow)
    assert outcome.reason.startswith(reason)
    assert len(outcome.reason) < 200


@pytest.mark.parametrize(
    ("name", "head"), [("b.csv.gz", "user,item\n"), ("b.jsonl.gz", '{"user": "u", "item": "i"}\n')]
)
def test_a_file_of_blank_lines_is_one_line_soon(name: str, head: str, tmp_path: Path) -> None:
    path, start = written(tmp_path / name, head + "\n" * (64 << 20)), time.process_time()
    for option, other in (("--interactions", ()), ("--items", ("--interactions", written(tmp_path / "r.csv", ROWS)))):
        done = alignrec("new", "mine", "--to", "p.yaml", *other, option, path, cwd=tmp_path)
        assert (done.exit_code, "blank lines" in done.output.splitlines()[-1]) == (1, True)
    with pytest.raises(UserError, match="1,000,000 blank lines"):
        list(read_lines(path))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("kind", ["a device", "a link to a device", "a pipe"])
@pytest.mark.parametrize("name", ["s.csv", "s.parquet", "s.jsonl.gz", "s.npy", "s.pt", "s.json", "s.zip", "s.b"])
def test_a_special_file_is_refused_in_one_line(name: str, kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "a device" else tmp_path / name
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to a device":
        path.symlink_to("/dev/zero")

    def download(given: Path) -> None:
        fetch_file(str(given), tmp_path / "to", None, 1, 0, lambda done, total: None)

    for read in (open_vectors, column_names, sha256, download):
        with pytest.raises(
            UserError, match=rf"^{path}: not a plain file but a folder, pipe or device; correct the path$"
        ):
            read(path)
    with closing(open_files(Images(outside=True), tmp_path)) as files:
        assert files.read(str(path), 1000) == NO_FILE
    if kind == "a pipe" and path.suffix in (".npy", ".parquet"):
        with pytest.raises(UserError, match="not a plain file"):  # in a folder of features
            open_vectors(tmp_path)


def test_rows_of_one_long_text_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    path, text = tmp_path / "s.parquet", "x" * (8 << 20)
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 70, pa.int32()), [text])
    each, first = (pa.ListArray.from_arrays(ends, shared) for ends in (range(71), [0] + [70] * 20))
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30}
    pq.write_table(pa.table({"item": [*map(str, range(70))], "title": shared, "tags": each}), path, **options)
    sizes = [len(batch) for batch in read_batches(path)]
    assert (sum(sizes), max(sizes)) == (70, 1)
    pq.write_table(pa.table({"tags": first}), path, **options)
    with pytest.raises(UserError, match=r"not a sound Parquet file: a row of 587,202,560 bytes, and"):
        list(read_batches(path))
    pq.write_table(pa.table({"title": [text] * 3}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(UserError, match=r"texts of column 'title' have 8,388,\d+ bytes on average.*shorten them$"):
        list(read_batches(path))


def test_repeated_and_long_identifiers_of_features_take_no_memory(tmp_path: Path) -> None:
    path, vectors = tmp_path / "f.parquet", pa.array([[1.0, 2.0]] * 4)
    pq.write_table(pa.table({"asin": ["a", "b", "a", "b"], "v": vectors}), path)
    with pytest.raises(UserError, match=r"asin 'a' occurs twice; keep one row of it$"):
        match_file(path, ["a", "b", "c"])
    pq.write_table(pa.table({"asin": ["a", "b", "c", "y" * (1 << 25)], "v": vectors}), path)
    with pytest.raises(UserError, match=r"column 'asin' holds texts, and no identifiers; leave it out$"):
        match_file(path, ["a", "b", "c"])


def pack_zip(text: bytes) -> bytes:
    with zipfile.ZipFile(file := BytesIO(), "w") as archive:
        archive.writestr("r.csv", text)
    return file.getvalue()


def pack_tar(text: bytes) -> bytes:
    with tarfile.open(fileobj=(file := BytesIO()), mode="w:gz") as archive:
        member = tarfile.TarInfo("r.csv")
        member.size = len(text)
        archive.addfile(member, BytesIO(text))
    return file.getvalue()


PACKED = {"zip": pack_zip, "tar.gz": pack_tar, "xz": lzma.compress, "bz2": bz2.compress}


@pytest.mark.parametrize("ending", PACKED)
def test_archives_in_place_of_a_table_are_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.csv.{ending}"
    path.write_bytes(PACKED[ending](b"user,item\nu,i\n"))
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: an archive; unpack it, or compress it by gzip$"):
        tabular(path)


NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 4], np.int32).tobytes()), pa.py_buffer(b"\xff\xfeab")]
)
IDENTIFIERS = {
    "lists": (pa.array([["a"], ["b"]]), "column 'asin' is list<element: string>; identifiers are texts or integers"),
    "structs": (pa.array([{"x": "a"}] * 2), "column 'asin' is struct<x: string>; identifiers are texts or integers"),
    "not UTF-8": (NOT_UTF8, "write them as UTF-8"),
}


@pytest.mark.parametrize(("values", "said"), IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_identifiers_are_texts_or_integers(values: pa.Array, said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"asin": values, "v": pa.array([[1.0, 2.0]] * 2)}), path)
    with pytest.raises(UserError, match=f"^{path}: .*{re.escape(said)}$"):
        match_file(path, ["ab", "b"])
    if pa.types.is_nested(values.type):
        pq.write_table(pa.table({"user": values, "item": ["a", "b"]}), path)
        with pytest.raises(UserError, match=r"column 'user' is .*; identifiers are texts or integers$"):
            tabular(path)
