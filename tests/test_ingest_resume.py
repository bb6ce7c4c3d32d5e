"""The first four stages, killed or out of disk midway: the next run ends with the same bytes."""

import resource
import shutil
import time
from pathlib import Path

import processes
import pytest
from processes import alignrec, started
from typer.testing import CliRunner

from alignrec.commands.app import app
from alignrec.pipeline.io import sha256

STAGES = ("download", "interactions", "items", "images")
PARAMS = """
datasets: [shop]
sources: {shop: {kind: sample, users: 300, items: 120}}
images: {shard_rows: 20}
"""


def command(stage: str, folder: Path) -> list[str]:
    return [stage, "shop", "--params", str(folder / "p.yaml"), "--root", str(folder)]


def finish(stage: str, folder: Path) -> None:
    done = CliRunner().invoke(app, command(stage, folder))
    assert done.exit_code == 0, done.stderr


def contents(folder: Path) -> dict[str, str]:
    files = [p for stage in STAGES for p in sorted((folder / stage).rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): sha256(p) for p in files}


def project(folder: Path) -> Path:
    folder.mkdir()
    (folder / "p.yaml").write_text(PARAMS)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project(tmp_path_factory.mktemp("ingest") / "whole")
    for stage in STAGES:
        finish(stage, folder)
    return folder


def test_killed_in_the_middle_of_each_stage_the_next_run_gives_the_same_bytes(
    undisturbed: Path, tmp_path: Path
) -> None:
    folder, killed = project(tmp_path / "killed"), 0
    for stage in STAGES:
        process, made = alignrec(*command(stage, folder)), folder / ".work" / stage / "shop"
        while process.poll() is None and not any(p.is_file() for p in made.rglob("*")):
            time.sleep(0.005)
        killed += process.poll() is None  # it has begun to write
        process.kill()
        process.wait()
        finish(stage, folder)
    assert killed >= 3
    assert contents(folder) == contents(undisturbed)


def limited(limit: int, *arguments: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    processes.command(*arguments)


def test_a_full_disk_is_one_clear_line_and_what_was_finished_stays(undisturbed: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "full")
    for stage in STAGES[:3]:
        shutil.copytree(undisturbed / stage, folder / stage)
    largest = max(p.stat().st_size for p in (undisturbed / "images" / "shop").glob("images-*.parquet"))
    limit = largest - 1  # the largest shard does not fit any more
    process = started(limited, limit, *command("images", folder))
    error = process.communicate()[1]
    assert process.returncode == 1
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert ("File too large" in error, "Traceback" in error) == (True, False)
    finished = {p: p.stat().st_mtime_ns for p in (folder / ".work/images/shop").glob("images-*.parquet")}
    finish("images", folder)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert contents(folder) == contents(undisturbed)
