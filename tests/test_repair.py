"""What a kill leaves of DVC's own files."""

import json
from pathlib import Path

import pytest

from stages.repair import repair

RWLOCK = json.dumps({"write": {"/out": {"pid": 1, "cmd": "dvc repro"}}, "read": {}})
LOCK = "schema: '2.0'\nstages:\n  a:\n    cmd: b\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text(RWLOCK)
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


def test_whole_files_stay(project: Path) -> None:
    assert repair(project) == []
    assert (project / "dvc.lock").read_text() == LOCK


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_half_written_rwlock_goes(project: Path, share: float) -> None:
    path = project / ".dvc" / "tmp" / "rwlock"
    path.write_text(RWLOCK[: int(share * len(RWLOCK))])
    assert repair(project) == [path]
    assert not path.exists()
    assert (project / "dvc.lock").exists()


@pytest.mark.parametrize("text", ["", "schema: '2.0'\nstages:\n  a:\n    cm", "schema: '2.0'\nstages: {a"])
def test_a_half_written_dvc_lock_goes(project: Path, text: str) -> None:
    (project / "dvc.lock").write_text(text)
    assert repair(project) == [project / "dvc.lock"]


def test_a_folder_without_dvc_is_left_alone(tmp_path: Path) -> None:
    assert repair(tmp_path) == []
