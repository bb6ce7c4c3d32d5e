"""`alignrec embed` from S3 into S3, which keeps no copy of the table here."""

import io as bytes_io
import json
import os
from pathlib import Path
from typing import Any

import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import stored
from commands import alignrec

from alignrec.pipeline.release import embed_remote, stores
from alignrec.pipeline.release.embed_remote import ObjectFile, list_sources

COLOURS = ["red", "blue", "green", "grey"]
ROWS = 10


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose parts have four rows."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("encode: {shard_rows: 4, batch_size: 2}\nencoders: {small: {kind: descriptors}}\n")
    return tmp_path


def table(rows: int = ROWS, **columns: object) -> pa.Table:
    images = [pictures.plain(COLOURS[row % 4]) for row in range(rows)]
    return pa.table({"sku": [f"i{row}" for row in range(rows)], "image": images, **columns})


def put(s3: Any, bucket: str, name: str, rows: pa.Table, row_group_size: int = 3) -> None:
    data = bytes_io.BytesIO()
    pq.write_table(rows, data, row_group_size=row_group_size)
    s3.put_object(Bucket=bucket, Key=name, Body=data.getvalue())


def read(s3: Any, bucket: str, name: str) -> bytes:
    return s3.get_object(Bucket=bucket, Key=name)["Body"].read()


def embed(*args: object, encoder: str = "small") -> tuple[int, str]:
    result = alignrec("embed", *args, "--encoder", encoder)
    return result.exit_code, result.output


def test_parts_have_the_bytes_of_a_local_table(s3: Any, bucket: str, here: Path) -> None:
    put(s3, bucket, "in/a.parquet", table()[:5])
    put(s3, bucket, "in/b.parquet", table()[5:])
    put(s3, bucket, "in/_other.parquet", table())
    pq.write_table(table(), "t.parquet")
    assert embed("t.parquet", "--to", "local")[0] == 0
    before = {path.name for path in here.iterdir()}

    to = f"s3://{bucket}/out"
    code, output = embed(f"s3://{bucket}/in", "--to", to)
    assert (code, output.splitlines()[-1]) == (0, f"embedded: {to}: 10 items, 10 with image, 0 with text")
    names = [f"features-0000{part}.parquet" for part in range(3)]
    assert [name for name in stored(s3, bucket) if name.startswith("out/")] == [
        "out/_embed.json",
        *(f"out/{name}" for name in names),
    ]
    for name in names:
        assert read(s3, bucket, f"out/{name}") == Path("local", name).read_bytes()
    assert json.loads(read(s3, bucket, "out/_embed.json"))["items"] == ROWS
    assert {path.name for path in here.iterdir()} == before
    assert not [path for path in Path("outputs").rglob("*") if path.is_file() and "embed" in path.parts]


def test_a_run_that_was_killed_sends_what_is_missing(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, bucket, "t.parquet", table())
    where = (f"s3://{bucket}/t.parquet", "--to", f"s3://{bucket}/out")
    encoded: list[str] = []
    send = embed_remote.send_part

    def kill(path: Path, bucket: object, name: str, key: str) -> None:
        encoded.append(name)
        if len(encoded) == 2:
            raise KeyboardInterrupt
        send(path, bucket, name, key)

    monkeypatch.setattr(embed_remote, "send_part", kill)
    code, output = embed(*where)
    assert (code != 0, f"parts that are sent are kept in s3://{bucket}/out" in output) == (True, True)
    assert [name for name in stored(s3, bucket) if name.startswith("out/")] == ["out/features-00000.parquet"]

    ranges: list[tuple[int, int]] = []
    get = ObjectFile.read_range
    monkeypatch.setattr(ObjectFile, "read_range", lambda self, end: ranges.append((self._place, end)) or get(self, end))
    assert embed(*where)[0] == 0
    assert encoded[2:] == ["features-00001.parquet", "features-00002.parquet"]
    assert embed(*where)[0] == 0
    assert len(encoded) == 4, "all parts are there"
    code, output = embed(*where, encoder="cnn")
    assert (code, "exists already, of another table, encoder or settings; name another folder" in output) == (1, True)


def test_rows_that_cannot_be_used_are_kept_by_part_with_their_lines(s3: Any, bucket: str) -> None:
    names = [f"i{row}" for row in range(ROWS)]
    names[6] = "i1"  # of an earlier part
    put(s3, bucket, "t.parquet", table().set_column(0, "sku", pa.array(names)))
    to = f"s3://{bucket}/out"
    code, output = embed(f"s3://{bucket}/t.parquet", "--to", to)
    assert (code, output.splitlines()[-2:]) == (
        0,
        [
            f"embedded: {to}: 9 items, 9 with image, 0 with text",
            f"not used: {to}/_rejects-*.parquet: 1 rows: occurred before (1)",
        ],
    )
    rejects = pq.read_table(bytes_io.BytesIO(read(s3, bucket, "out/_rejects-00001.parquet"))).to_pylist()
    assert [(row["line"], row["reason"]) for row in rejects] == [(7, "'i1' occurred before")]


def test_objects_are_read_by_ranges(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [os.urandom(500_000) for _ in range(6)]
    put(s3, bucket, "t.parquet", pa.table({"sku": [*"abcdef"], "image": images}), row_group_size=1)
    (source,) = list_sources(f"s3://{bucket}/t.parquet")
    taken: list[int] = []
    get = ObjectFile.read_range
    monkeypatch.setattr(ObjectFile, "read_range", lambda self, end: taken.append(end - self._place) or get(self, end))
    file = pq.ParquetFile(ObjectFile(source), pre_buffer=False)
    assert file.read_row_group(5)["sku"].to_pylist() == ["f"]
    assert sum(taken) < source.size / 2

    stream = ObjectFile(source)
    assert (stream.seek(-4, 2), stream.read(9), stream.read()) == (source.size - 4, b"PAR1", b"")
    put(s3, bucket, "t.parquet", table())
    with pytest.raises(stores.UserError, match=r"t\.parquet: changed while it was read; run again"):
        ObjectFile(source).read(8)


@pytest.mark.parametrize(
    ("source", "to", "encoder", "fault"),
    [
        ("s3://{}/none.parquet", "s3://{}/out", "small", "no such bucket or object"),
        ("s3://{}/empty", "s3://{}/out", "small", "no *.parquet there; tables in s3:// are Parquet"),
        ("s3://{}/text.parquet", "s3://{}/out", "small", "text.parquet: not a sound Parquet file"),
        ("s3://{}/mixed", "s3://{}/out", "small", "mixed/b.parquet: has other columns than s3://"),
        ("s3://{}/t.parquet", "out", "small", "a table of s3:// is embedded into s3://"),
        ("t.parquet", "s3://{}/out", "small", "a table of s3:// is embedded into s3://"),
        ("s3://{}/t.parquet", "s3://{}/out", "tfidf", "'tfidf' is fitted to the whole table"),
        ("s3://{}/t.parquet", "s3:///", "small", "the address names no bucket"),
    ],
)
def test_a_mistake_is_one_line(s3: Any, bucket: str, source: str, to: str, encoder: str, fault: str) -> None:
    put(s3, bucket, "t.parquet", table())
    put(s3, bucket, "mixed/a.parquet", table())
    put(s3, bucket, "mixed/b.parquet", table(more=[1] * ROWS))
    s3.put_object(Bucket=bucket, Key="text.parquet", Body=b"sku,title\n")
    before = stored(s3, bucket)
    code, output = embed(source.format(bucket), "--to", to.format(bucket), encoder=encoder)
    assert (code, output.startswith("error: "), len(output.splitlines())) == (1, True, 1)
    assert fault in output
    assert stored(s3, bucket) == before
