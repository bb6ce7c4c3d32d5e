"""Targets: files of interactions, through DuckDB up to the split."""

from functools import cache

import pyarrow as pa

from alignrec.pipeline.dataset.published import import_published, load_published
from alignrec.pipeline.dataset.split_tables import create_database
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources import inspect
from alignrec.pipeline.sources.amazon import Amazon2023, AmazonSource
from alignrec.pipeline.sources.mmrec import MmrecSource
from tests.hostile import test_sources
from tests.hostile.fuzz.target import Target, encoded, folder, table, written
from tests.hostile.test_sources import HEADER, ROWS

CSV = [ROWS.encode(), *encoded([c for n, c, *_ in test_sources.READ.values() if n == "r.csv"])]
NO_CSV = [
    ROWS.encode("utf-16"),
    ROWS.encode("utf-16-le"),
    ROWS.encode("utf-32"),
    bytes(10_000),
    b"u" * 200_000 + b",item\n",
    ROWS.replace("\n", "\r").encode(),
    b"user,item,item\na,x,y\n",
    f"{HEADER}a,x,5,{'soon ' * 1000}\n".encode(),
]
JSON = b'{"user":"a","item":"x","rating":5,"timestamp":10}\n'
REVIEW = (
    b'{"reviewerID":"a","user_id":"a","asin":"x","parent_asin":"x","overall":5.0,"rating":5.0,'
    b'"unixReviewTime":10,"timestamp":10000}\n'
)
JSONS = [JSON * 3, REVIEW * 3, *encoded([c for n, c, *_ in test_sources.READ.values() if n == "r.jsonl"])]
INTER = "userID\titemID\trating\ttimestamp\tx_label\n"
INTERS = encoded([INTER + "0\t0\t5\t1\t0\n0\t1\t4\t2\t1\n"])
NO_INTERS = encoded(
    [
        INTER + row
        for row in (
            *("1.5\t0\t5\t1\t0\n", "0\t0.5\t5\t1\t0\n", "0\t0\t5\t1\t0.6\n", "0\t-1\t5\t1\t0\n", "a\tb\tc\td\te\n"),
            *("0\t50000000\t5\t1\t0\n", "2000000000\t0\t5\t1\t0\n", f"0\t{'9' * 300}\t5\t1\t0\n"),
        )
    ]
)
NO_JSON = ['{"user":1}'.encode("utf-16"), b"5\n"]
NO_PARQUET = [ROWS.encode(), b"PAR1" + b"\xff" * 64 + b"\x20\0\0\0PAR1"]
DATES = ["2024-03-10", "2024-03-10 02:30:00+09", "1710028800", "1710028800000", "infinity", "294248-01-01", "epoch"]
SLOW = 3  # DuckDB takes a tenth of a second to open


TIMES = pa.array([1, 2, 3], pa.timestamp("us"))
PARQUET = table(user=["a", "a", "b"], item=["x", "y", "x"], rating=[5, 4, 3], timestamp=TIMES)


def ratings(source: Source, role: str, name: str, data: bytes) -> None:
    path = written(name, data)
    with create_database(folder("scratch"), "256MiB") as db:
        sql = source.reader().ratings({role: path})
        if isinstance(source, MmrecSource):
            asins = [str(i) for i in range(load_published(db, sql)[1])]
            if len(asins) < 100_000:
                list(import_published(db, asins, True).interactions)
        else:
            db.sql(sql).fetchall()


def tabular(name: str, data: bytes) -> None:
    test_sources.tabular(written(name, data))


def amazon(data: bytes) -> None:
    for source in (AmazonSource(kind="amazon2014", reviews="r"), Amazon2023(kind="amazon2023", reviews="r")):
        ratings(source, "reviews", "r.csv" if data[:1].isalpha() else "r.json", data)


def date(data: bytes) -> None:
    cell = data.replace(b'"', b'""').replace(b"\n", b" ").replace(b"\r", b" ")
    tabular("d.csv", HEADER.encode() + b'a,x,5,10\na,y,5,"' + cell + b'"\n')


def looked_at(data: bytes) -> None:
    seen = inspect.inspect_table(written("n.jsonl" if data.startswith(b"{") else "n.csv", data), {})
    seen.described()
    seen.described()


@cache
def targets() -> dict[str, Target]:
    return {
        "ratings-csv": Target(lambda data: tabular("r.csv", data), CSV, quick=SLOW, refused=NO_CSV),
        "ratings-json": Target(lambda data: tabular("r.jsonl", data), JSONS, quick=SLOW, refused=NO_JSON),
        "ratings-parquet": Target(
            lambda data: tabular("r.parquet", data),
            [PARQUET, PARQUET.replace(b"user", b"\xe5ser")],
            quick=SLOW,
            refused=NO_PARQUET,
        ),
        "ratings-amazon": Target(amazon, [REVIEW * 3, b"a,x,5.0,10\na,y,4.0,20\n", ROWS.encode()], quick=SLOW),
        "ratings-inter": Target(
            lambda data: ratings(MmrecSource(kind="mmrec", interactions="m.inter"), "interactions", "m.inter", data),
            INTERS,
            quick=SLOW,
            refused=NO_INTERS,
        ),
        "date": Target(date, encoded(DATES), quick=SLOW),
        "inspect": Target(looked_at, [*CSV[:3], *JSONS], quick=SLOW),
    }
