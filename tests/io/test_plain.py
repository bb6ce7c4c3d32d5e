"""What opens files of the disk refuses pipes, folders and devices, and does not wait for them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alignrec import schemas
from alignrec.encoders import decode
from alignrec.pipeline import io
from alignrec.pipeline.encoders import tfidf
from alignrec.pipeline.io import arrays, csv_rows, json_rows, parquet, text
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.yaml_files import read_yaml


def test_the_command_that_makes_a_file_is_that_of_the_stage_above_it() -> None:
    for path in ("mine", "mine/run.json", "mine/tfidf/features-00000.parquet", "mine/linear/encoder/linear/maps"):
        assert io.made_by(Path("here/outputs/encode") / path) == "run `alignrec encode mine` first"
    assert io.made_by(Path("here/other/mine/run.json")) == "make or fetch it again"


def test_json_lines_are_inspected_up_to_a_row_for_their_keys(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n' * json_rows.ROWS_INSPECTED + '{"b": 1}\n{"c": 1}\n')
    assert json_rows.column_names(tmp_path / "r.jsonl") == ["a"]
    assert json_rows.column_names(tmp_path / "r.jsonl", ["b"]) == ["a", "b"]


READERS: dict[str, Callable[[Path], object]] = {
    "open_plain": io.open_plain,
    "read_plain": io.read_plain,
    "read_json": io.read_json,
    "sha256": io.sha256,
    "read_table": lambda path: io.read_table(path, schemas.ITEM_IDS),
    "read_tables": lambda path: [*io.read_tables(path, schemas.ITEM_IDS)],
    "read_slices": lambda path: [*io.read_slices(path, schemas.ITEM_IDS, None, 1)],
    "read_rows": lambda path: io.read_rows(path, schemas.ITEM_IDS, ["item_id"], 0, 1),
    "rows": lambda path: io.rows([path]),
    "record": io.record,
    "read_codes": io.read_codes,
    "read_features": lambda path: io.read_features(path.parent),
    "read_tensors": arrays.read_tensors,
    "read_shapes": arrays.read_shapes,
    "refuse_infinite": arrays.refuse_infinite,
    "tfidf": lambda path: tfidf.load_tfidf(path.parent, tfidf.TfidfParams()),
    "parquet": lambda path: [*parquet.read_batches(path)],
    "parquet names": parquet.column_names,
    "lines": lambda path: [*text.read_lines(path)],
    "csv": lambda path: csv_rows.column_names(path, ","),
    "yaml": read_yaml,
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_one_line(tmp_path: Path, reader: str, make: Callable[[Path], object]) -> None:
    path = tmp_path / "features-00000.parquet"
    if reader == "tfidf":
        (tmp_path / tfidf.WORDS).write_text("[]")
        path = tmp_path / tfidf.COMPONENTS
    make(path)
    with pytest.raises(UserError) as e:
        READERS[reader](path)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_a_pipe_that_takes_a_files_place_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    monkeypatch.setattr(Path, "is_file", lambda self: True)  # as it was a moment ago
    with pytest.raises(UserError, match="file: was replaced while it was opened; run again"):
        io.open_plain(path)


def test_a_pipe_in_place_of_an_image_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    status, reason = decode(tmp_path / "image.png") or ("", "")
    assert status == "missing"
    assert "not a plain file" in str(reason)


def test_the_content_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert io.read_plain(path, 5) == b"12345"
    with pytest.raises(UserError, match="file: 5 bytes, and files of this kind have at most 4"):
        io.read_plain(path, 4)
