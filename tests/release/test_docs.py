"""The commands of docs/release.md run as written, next to a release without the project."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import coded
import pyarrow.parquet as pq
import pytest
import toy
import yaml
from PIL import Image
from typer.testing import CliRunner

from alignrec.commands.app import app
from alignrec.pipeline.harness.code import ROOT

TEXT = (ROOT / "docs/release.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, new items as on the page, and the release's items with images."""
    folder = tmp_path_factory.mktemp("beside")
    layout = coded.with_encoders(folder / "outputs")
    shutil.move(layout.release, folder / "release")
    (folder / "folder").mkdir()
    Image.new("RGB", (50, 50), "red").save(folder / "folder/one.png")
    images = pq.read_table(next(layout.images.glob("images-*.parquet")))["image"].to_pylist()
    for asin, image in enumerate(images):
        if image:
            (folder / f"folder/A{asin}.jpg").write_bytes(image)
    rows = [json.dumps({"asin": f"A{i}", "text": text}) for i, text in enumerate(toy.TITLES)]
    (folder / "items-of-the-release.jsonl").write_text("\n".join(rows))
    (folder / "items.jsonl").write_text(blocks("json")[0])
    shutil.rmtree(folder / "outputs")
    return folder


def test_the_commands_run_in_their_order(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(beside)
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    commands.remove(zipping := next(command for command in commands if command.startswith("python -m zipfile")))
    assert {shlex.split(command)[1] for command in commands} == {
        *("fetch", "verify", "export", "compare", "diff", "probe", "embed")
    }
    zipfile.main(shlex.split(zipping)[3:])
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}: {result.output}"
    assert pq.read_table("new").num_rows == 2
    assert "attested; text, image and vector of 6 rows agree" in result.output


def test_the_workflow_attaches_a_release_that_is_fetched(beside: Path, tmp_path: Path) -> None:
    """The steps run as written; the last one needs a server."""
    steps = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["sample"]["steps"]
    _, zipping, fetching, uploading = [step["run"] for step in steps if "run" in step]
    shutil.copytree(beside / "release", tmp_path / "outputs/publish/sample/release")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    here = {"GITHUB_REF_NAME": "v0.1.0", "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}/.venv/bin:{os.environ['PATH']}"}
    for command in (zipping, fetching):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=os.environ | here, check=True, capture_output=True)
    assert (tmp_path / "checked/manifest.json").read_bytes() == (beside / "release/manifest.json").read_bytes()
    assert [path.name for path in tmp_path.glob(uploading.split()[-1])] == ["sample-0.1.0.zip"]


def test_every_file_of_a_release_is_described(beside: Path) -> None:
    described = re.findall(r"`([\w.<>/]+?)`", TEXT.split("## A light install")[0])
    folders = {name.partition("/")[0] for name in described}
    assert {path.name for path in (beside / "release").iterdir()} <= folders
