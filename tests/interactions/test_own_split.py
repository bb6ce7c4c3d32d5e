"""CSV that DuckDB's fast reader refuses: other rows are read, and unreadable ones are stored as rejects."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources import lines
from alignrec.pipeline.sources.download import list_files

ROWS = [f"u{i % 20},i{i % 63},{i % 5 + 1},{i}" for i in range(400)]
HEADER = "user,item,rating,timestamp,review"
TEXT = "\n".join([HEADER, *(f"{row},fine" for row in ROWS)]) + "\n"


def stage(root: Path, data: bytes, name: str = "r.csv", **source: object) -> Layout:
    layout = Layout(root, "shop")
    layout.raw.mkdir(parents=True, exist_ok=True)
    (layout.raw / name).write_bytes(data)
    io.write_json(layout.sources, list_files(layout.raw, {"interactions": name}, {}))
    made = {"kind": "tabular", "interactions": [name], **source}
    params = Params.model_validate(
        {"datasets": ["shop"], "sources": {"shop": made}, "interactions": {"user_core": 1, "item_core": 1}}
    )
    toy.run("interactions", params, root)
    return layout


def table(layout: Layout) -> list[dict]:
    users = pq.read_table(layout.users)["user"].to_pylist()
    items = pq.read_table(layout.item_ids)["asin"].to_pylist()
    rows = pq.read_table(layout.interactions).to_pylist()
    return [row | {"user_id": users[row["user_id"]], "item_id": items[row["item_id"]]} for row in rows]


READ = {
    "a line break within quotes": b'"so\ngood"',
    "a quote within quotes": b'"a ""b"" c"',
    "a byte that is no UTF-8 in a column that nobody reads": b"caf\xe9",
    "three million characters": b"x" * 3_000_000,
    "a carriage return at the end": b"fine\r",
}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_an_odd_review_loses_no_row(tmp_path: Path, text: bytes) -> None:
    plain = table(stage(tmp_path / "plain", TEXT.encode()))
    odd = stage(tmp_path / "odd", TEXT.encode().replace(b"fine", text, 1))
    assert table(odd) == plain
    assert len(plain) == 400
    assert not odd.interaction_rejects.exists() or not pq.read_metadata(odd.interaction_rejects).num_rows


BAD = {
    "a value too many": (b"u,i,5,9,fine,more", "more than 5 values"),
    "a user that is no UTF-8": (b"caf\xe9,i,5,9,fine", "not UTF-8"),
    "text after a quote": (b'u,i,5,9,"a"b', "not CSV: ',' expected after '\"'"),
}


@pytest.mark.parametrize(("row", "reason"), BAD.values(), ids=BAD)
def test_a_bad_row_is_a_stored_reject(tmp_path: Path, row: bytes, reason: str) -> None:
    lines = TEXT.encode().splitlines()
    layout = stage(tmp_path, b"\n".join([*lines[:200], row, *lines[200:]]))
    (reject,) = io.read_table(layout.interaction_rejects, schemas.REJECTS).to_pylist()
    assert (reject["file"], reject["line"], reject["reason"]) == ("r.csv", 201, reason)
    assert reject["raw"].rstrip(b"\n") == row
    run = io.read_json(layout.run_record("interactions"))
    assert (run["rows_in"], run["rows_out"]) == (401, 400)
    assert run["drops"]["unreadable_line"] == 1
    assert len(table(layout)) == 400


def test_more_bad_rows_than_allowed_are_refused_and_the_share_is_a_setting(tmp_path: Path) -> None:
    data = TEXT.encode() + b"u,i,5,9,fine,more\n" * 8
    with pytest.raises(UserError, match="8 of 408"):
        stage(tmp_path, data)
    layout = stage(tmp_path, data, max_reject_share=0.05)
    assert (len(table(layout)), layout.interaction_rejects.exists()) == (400, True)


def test_an_ordinary_file_is_not_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage(tmp_path / "odd", TEXT.encode() + b"u,i,5,9,fine,more\n").interaction_rejects.exists()
    monkeypatch.setattr(lines, "read_rows", lambda *_: pytest.fail("read row by row"))
    assert not stage(tmp_path, TEXT.encode()).interaction_rejects.exists()
