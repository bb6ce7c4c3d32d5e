"""Renames that a disk loses."""

from pathlib import Path

import pytest

from alignrec.pipeline import io


def test_a_rename_that_the_disk_loses_is_an_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda path, to: to)
        with pytest.raises(OSError, match="old name") as raised:
            io.write_json(tmp_path / "sources.json", [])
    assert raised.value.filename == str(tmp_path / "sources.json")
    assert list(tmp_path.iterdir()) == []
    io.write_json(tmp_path / "sources.json", [])
    assert io.read_json(tmp_path / "sources.json") == []


def test_a_folder_keeps_what_it_had_if_its_rename_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a").write_bytes(b"a")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda path, to: to)
        with pytest.raises(OSError, match="old name"):
            io.rename_folder(tmp_path / "new", tmp_path / "out")
    io.rename_folder(tmp_path / "new", tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"a"
