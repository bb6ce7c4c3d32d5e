"""Targets: lines and files of item metadata."""

import json
from collections.abc import Callable, Sequence
from functools import cache

import orjson

from alignrec.pipeline.dataset.products import Parsed, parse_line
from alignrec.pipeline.io.json_rows import json_lines, json_object
from alignrec.pipeline.release import item_file, item_table
from alignrec.pipeline.sources.amazon import Reader2014, Reader2018, Reader2023
from alignrec.pipeline.sources.base import Reader
from alignrec.pipeline.sources.mmrec import MmrecReader
from alignrec.pipeline.sources.tabular import TabularSource
from tests.hostile.fuzz.target import Target, folder, table, written

TABULAR = TabularSource(kind="tabular", interactions="r.csv", items="i.csv").reader()
SOUND = orjson.dumps(
    {
        **dict.fromkeys(("asin", "parent_asin", "item"), "A"),
        **{"itemID": 1, "title": "a &amp; <b>b</b>", "brand": "c", "description": ["d", "é"], "price": 1.5},
        **{"categories": [["e", "f"]], "category": ["e"], "imUrl": "http://e/x.jpg", "imageURL": ["//e/x.jpg"]},
        **{"images": [{"variant": "MAIN", "large": "http://e/x.jpg"}], "details": {"Brand": "g"}, "store": None},
    }
)
LITERALS = [
    b"{'asin': 'A', 'a': (" + b"1," * 4_000_000 + b")}",
    b"{'asin': '" + b"\\'" * 500_000,
    b"'" * 1_000_001,
    b"{'asin': 'A', 'a': '\\x41', 'b': '" + b"\\'\\\"" * 300_000,
]
LITERAL = b"{'asin': 'A', 'title': \"it's\", 'categories': [['e', 'f']], 'related': {'bought': ('x',), 'n': None}}"
RECORDS = [SOUND, LITERAL, b"null", b"[1]", b"5", b"{" * 2000, *(line[:2000] for line in LITERALS)]
# of a file for embed, in which only one column may be of images
ITEM = orjson.dumps({name: of for name, of in orjson.loads(SOUND).items() if name not in ("imageURL", "images")})
TABLE = b'item,title,image_urls\nx,"a, b",http://e/x.jpg|y.jpg\ny,,\n'


class Everything:
    def __contains__(self, name: object) -> bool:
        return True


def product(reader: Reader) -> Callable[[bytes], object]:
    """Return a reader of one line as in the stage `items`, where unreadable lines are rejects, not errors."""

    def one(data: bytes) -> None:
        reader.key(data)
        outcome = parse_line(1, data, reader, Everything())
        if isinstance(outcome, Parsed):
            json.dumps(outcome, ensure_ascii=False).encode()  # no surrogate, which no file can hold

    return one


def items_of(data: bytes) -> None:
    for ending in ("csv", "jsonl"):
        for rows, rejects in item_file.read_blocks(
            item_table.open_table(written(f"i.{ending}", data), folder("images"))
        ):
            assert all(row.asin for row in rows)
            assert all(reject.reason.isprintable() for reject in rejects)


LONG_NAME = b"item,title,image\nx,t," + b"n" * 300 + b"\n"


def table_lines(data: bytes, names: Sequence[str] = ("i.csv", "i.tsv")) -> None:
    for name in names:
        for line in json_lines(written(name, data)):
            parse_line(1, line, TABULAR, Everything())


NESTED = {"item": ["x", "y"], "categories": [["a", "b"], None], "m": [{"p": "q"}, {"p": None}], "b": [b"1", b"2"]}


@cache
def targets() -> dict[str, Target]:
    return {
        "json-object": Target(json_object, RECORDS, (ValueError,)),
        "literal": Target(Reader2014().parse, [LITERAL, *RECORDS], (ValueError,), refused=LITERALS),
        "product-amazon2014": Target(product(Reader2014()), [LITERAL, *RECORDS]),
        "product-amazon2018": Target(product(Reader2018()), RECORDS),
        "product-amazon2023": Target(product(Reader2023()), RECORDS),
        "product-mmrec": Target(product(MmrecReader()), RECORDS),
        "product-tabular": Target(product(TABULAR), RECORDS),
        "item-table": Target(table_lines, [TABLE, b'item,title\nx,"\ny,1\n', b"item;title\nx;t\n"]),
        "item-parquet": Target(
            lambda data: table_lines(data, ["i.parquet"]), [table(**NESTED), table(item=["x"] * 99)]
        ),
        "item-file": Target(
            items_of,
            [ITEM.replace(b"[[", b"[").replace(b"]]", b"]"), LONG_NAME, TABLE, ITEM, *RECORDS[1:]],
            refused=[SOUND],
        ),
    }
