"""Folders in which git or DVC cannot work: `new` and `profile` are one line, and write nothing."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import alignrec

COMMANDS = (
    ("new", "mine", "--interactions", "R.CSV", "--interactions-only"),
    ("profile", "paper"),
    ("new",),
)
PARAMS = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"


def write_table(path: Path, users: int = 12, items: int = 12) -> None:
    rows = [f"u{u},i{(u + i) % items},5,{1_600_000_000 + 1000 * u + i}" for u in range(users) for i in range(6)]
    path.write_text("\n".join(["user,item,rating,timestamp", *rows, ""]))


def own_by_another(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for path in (folder, folder / ".git"):
        os.chown(path, 12345, 12345)


def pipe(name: str) -> Callable[[Path], object]:
    return lambda folder: os.mkfifo(folder / name)


REFUSED: dict[str, tuple[str, Callable[[Path], object], dict[str, str], str]] = {
    "no git": ("shop", lambda folder: None, {"PATH": ""}, "git is not installed"),
    "braces": ("{x}", lambda folder: None, {}, "braces in its path"),
    "variable": ("${HOME}", lambda folder: None, {}, "braces in its path"),
    "git refuses": (
        *("shop", lambda folder: subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)),
        *({"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "git cannot read its repository: detected dubious ownership"),
    ),
    "another owner": ("shop", own_by_another, {}, "own"),
    "dvc.yaml": ("shop", pipe("dvc.yaml"), {}, "dvc.yaml: not a plain file"),
    ".dvcignore": ("shop", pipe(".dvcignore"), {}, ".dvcignore: not a plain file"),
    ".gitignore": ("shop", pipe(".gitignore"), {}, ".gitignore: not a plain file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_written_where_git_or_dvc_cannot_work(tmp_path: Path, case: str) -> None:
    name, prepare, environment, fault = REFUSED[case]
    if case == "another owner" and os.geteuid():
        pytest.skip("only root can give files to others")
    for command in COMMANDS:
        folder = tmp_path / command[-1] / name
        folder.mkdir(parents=True)
        write_table(folder / "R.CSV")
        if command == ("new",):
            (folder / "params.yaml").write_text(PARAMS)
        prepare(folder)
        before = sorted(folder.rglob("*"))
        done = alignrec(*command, cwd=folder, **environment)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        assert fault in done.stderr
        assert sorted(folder.rglob("*")) == before


def test_a_table_in_capitals_is_read(tmp_path: Path) -> None:
    write_table(tmp_path / "R.CSV")
    done = alignrec(*COMMANDS[0], "--to", "other.yaml", cwd=tmp_path)
    assert done.exit_code == 0, done.output
    for stage in ("download", "interactions"):
        done = alignrec(stage, "mine", "--params", "other.yaml", cwd=tmp_path)
        assert done.exit_code == 0, done.output
    assert "72 rows in, 72 out" in done.output


@pytest.mark.parametrize("to", [".", "", "/proc/x", "/", "file/x"])
def test_embed_names_a_place_where_no_folder_can_be_made(tmp_path: Path, to: str) -> None:
    (tmp_path / "items.csv").write_text("id,title\n1,red apple\n2,red car\n")
    (tmp_path / "file").touch()
    done = alignrec("embed", "items.csv", "--encoder", "descriptors", "--to", to, cwd=tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert "name one inside it" in done.stderr or "name another" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "items.csv"]
