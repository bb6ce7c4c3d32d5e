"""The cache of `alignrec.load`: several processes, damaged copies, folders that cannot be written."""

import subprocess
import sys
from pathlib import Path

import alignrec

LOAD = "import sys, alignrec; print(len(alignrec.load('sample', cache=sys.argv[1]).items))"


def test_processes_that_load_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    ended = [(*process.communicate(), process.returncode) for process in started]
    assert [code for _, _, code in ended] == [0] * 4, ended
    assert len({counted for counted, _, _ in ended}) == 1


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    release = alignrec.load("sample", cache=tmp_path)
    for change in (lambda path: path.write_bytes(b"x"), Path.unlink):
        change(release.folder / "items.parquet")
        again = alignrec.load("sample", cache=tmp_path)
        assert (again.folder, len(again.items)) == (release.folder, release.info.counts.items)


def test_without_a_cache_the_package_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    release = alignrec.load("sample", cache=tmp_path / "file/cache")
    assert len(release.items) == release.info.counts.items
    assert not release.folder.is_relative_to(tmp_path)
