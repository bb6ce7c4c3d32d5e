"""Journals of resumable folders, and what a kill at any point leaves."""

import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignrec.pipeline import io
from alignrec.pipeline.io import journal
from alignrec.pipeline.io.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    io.open_journal(tmp_path / "folder", "inputs")
    return tmp_path / "folder"


def test_a_file_is_finished_for_the_key_of_its_inputs_and_as_it_was_listed(folder: Path) -> None:
    shard = folder / "shard"
    assert not io.is_finished(shard, "first")
    io.write_bytes(shard, b"1")
    assert io.is_finished(shard)
    assert not io.is_finished(shard, "first")  # killed before `finish`
    io.finish(shard, "first")
    assert io.is_finished(shard, "first")
    assert not io.is_finished(shard, "second")

    io.write_bytes(shard, b"2")
    assert not io.is_finished(shard, "first")  # killed before `finish`, with other content
    io.finish(shard, "second")
    assert io.is_finished(shard, "second")
    shard.write_bytes(b"3")
    assert not io.is_finished(shard, "second")
    io.finish(shard, "second")  # changed after it was written
    assert not io.is_finished(shard, "second")
    with pytest.raises(UserError, match="shard changed after it was written"):
        io.refuse_altered({shard: io.sha256(shard)})
    assert io.drop_unlisted(folder) == [shard]
    assert not io.is_finished(shard, "second")


def test_files_stay_for_an_equal_key_and_go_for_another_or_without_one(folder: Path) -> None:
    def stays(key: str) -> bool:
        io.write_bytes(folder / "shard", b"1")
        io.open_journal(folder, key)
        return (folder / "shard").exists()

    assert stays("inputs")
    assert not stays("others")
    assert stays("others")
    (folder / io.KEY).unlink()  # killed before the key was written
    assert not stays("others")
    (folder / io.KEY).write_text("oth")
    assert not stays("others")


def test_a_file_that_was_replaced_is_good_before_and_after_its_rename(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = folder / "below/shard"
    io.write_bytes(shard, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            io.write_bytes(shard, b"new")
    assert io.drop_unlisted(folder) == []
    assert shard.read_bytes() == b"old"
    io.write_bytes(shard, b"new")
    assert io.drop_unlisted(folder) == []
    assert shard.read_bytes() == b"new"


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_line_that_a_kill_cut_off_lists_nothing_and_hides_no_other(folder: Path) -> None:
    cut, whole = folder / "cut", folder / "whole"
    io.write_bytes(cut, b"1")
    listing = (folder / io.JOURNAL).read_bytes()
    (folder / io.JOURNAL).write_bytes(listing[:-2])
    io.write_bytes(whole, b"2")
    (folder / "stray").write_bytes(b"3")
    (folder / "download.part").write_bytes(b"4")
    assert io.drop_unlisted(folder) == []
    assert {path.name for path in folder.iterdir()} == {io.KEY, io.JOURNAL, "whole", "download.part"}


def test_a_journal_below_another_is_independent_of_it(folder: Path) -> None:
    inner = folder / "inner"
    io.open_journal(inner, "more")
    io.write_bytes(inner / "block", b"1")
    assert io.drop_unlisted(folder) == []
    assert (inner / "block").exists()
    (inner / "block").write_bytes(b"2")
    assert io.drop_unlisted(folder) == []
    assert io.drop_unlisted(inner) == [inner / "block"]
    assert (inner / journal.KEY).read_text() == "more"


def test_a_listed_file_that_changed_is_deleted_when_it_is_read(folder: Path) -> None:
    schema = pa.schema([pa.field("n", pa.int32(), nullable=False)])
    table = pa.table({"n": [1, 2]}, schema=schema)
    io.write_table(table, folder / "shard", schema)
    assert io.read_listed(folder / "shard", schema).equals(table)
    pq.write_table(pa.table({"n": [1, 3]}, schema=schema), folder / "shard")
    with pytest.raises(UserError, match="shard changed after it was written"):
        io.read_listed(folder / "shard", schema)
    assert not (folder / "shard").exists()

    (folder / "unlisted").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        io.read_listed(folder / "unlisted", schema)
    assert not (folder / "unlisted").exists()


def test_a_listed_file_is_kept_when_no_file_can_be_opened(folder: Path) -> None:
    schema = pa.schema([pa.field("n", pa.int32(), nullable=False)])
    table = pa.table({"n": [1, 2]}, schema=schema)
    io.write_table(table, folder / "shard", schema)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            io.read_listed(folder / "shard", schema)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert io.read_listed(folder / "shard", schema).equals(table)
