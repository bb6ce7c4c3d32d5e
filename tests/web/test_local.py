"""Files of this machine that are copied as downloads are."""

from pathlib import Path
from typing import Any

import pytest

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.web import download


def copied(tmp_path: Path) -> bytes:
    given = tmp_path / "given.csv"
    given.write_bytes(b"user,item\n")
    target = tmp_path / "raw/given.csv"
    download.fetch_file(str(given), target, None, 1, 0, lambda *_: None)
    return target.read_bytes()


def test_a_file_that_changes_after_it_was_hashed_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(part: Path, *_: Any) -> None:
        part.write_bytes(b"user,item\x00\n")

    with monkeypatch.context() as patch:
        patch.setattr(download, "_find_fault", altered)
        with pytest.raises(UserError, match=r"raw/given\.csv: changed while it was written"):
            copied(tmp_path)
    assert not (tmp_path / "raw/given.csv").exists()
    assert copied(tmp_path) == b"user,item\n"
