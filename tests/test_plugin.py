"""`alignrec new-plugin` writes a package whose own test passes as soon as it is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.code import ROOT
from stages.cli import app


def new(folder: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["new-plugin", folder])
    return done.exit_code, done.output


@pytest.mark.slow
def test_its_own_test_passes_once_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = new("my-parts")
    assert code == 0, said
    assert "next: cd my-parts && pip install --no-deps --editable . && python -m pytest tests" in said
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, "./my-parts"], check=True, capture_output=True)
    for check in (["pytest", "-q", "tests"], ["ruff", "check", "--isolated", "--select", "E9,F,B", "."]):
        command, path = [sys.executable, "-m", *check], f"{site}{os.pathsep}{ROOT}"
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, cwd=tmp_path / "my-parts", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_group_that_it_names_is_one_of_ours_and_no_placeholder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shelf_2").mkdir()
    assert new("shelf_2")[0] == 0
    written = {path.relative_to(tmp_path / "shelf_2").as_posix() for path in (tmp_path / "shelf_2").rglob("*.*")}
    modules = {f"shelf_2/{name}.py" for name in ("__init__", "model", "encoder", "probe")}
    assert written == {"pyproject.toml", "README.md", "tests/test_parts.py", *modules}
    texts = {name: (tmp_path / "shelf_2" / name).read_text() for name in written}
    assert [name for name, text in texts.items() if "{{" in text or "jinja" in text] == []
    groups = re.findall(r'entry-points\."alignrec\.(\w+)"', texts["pyproject.toml"])
    assert groups == ["models", "encoders", "probes"]


@pytest.mark.parametrize(
    "folder",
    ["json", "alignrec", "class", "<b>x</b>", "2nd", "a" * 41, "My Parts", "\x1b[2Jx", "..", "taken", "file"],
)
def test_what_it_refuses(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Work").mkdir()
    monkeypatch.chdir(tmp_path / "Work")
    Path("taken").mkdir()
    Path("taken/thing.txt").touch()
    Path("file").touch()
    code, said = new(folder)
    assert (code, said.count("\n"), said.startswith("error: ")) == (1, 1, True)
    assert "\x1b" not in said
    assert {path.name for path in Path().rglob("*")} == {"taken", "thing.txt", "file"}
