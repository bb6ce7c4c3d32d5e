"""A release comes the DVC way too: `dvc get` and `dvc import` from a repository with a remote."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import releases
import toy

from pipeline.release import verify

RELEASE = "outputs/publish/shop/release"


def run(*command: str, cwd: Path) -> None:
    here = str(Path(sys.executable).parent)
    quiet = {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1", "DVC_GLOBAL_CONFIG_DIR": str(cwd),
        "DVC_SYSTEM_CONFIG_DIR": str(cwd), "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip
    done = subprocess.run(command, cwd=cwd, env=os.environ | quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only copy of the data is in a local remote."""
    folder, remote = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("remote")
    releases.published(toy.outputs(folder / "outputs"))
    run("git", "init", "-q", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    run("dvc", "remote", "add", "-q", "-d", "shared", str(remote), cwd=folder)
    run("dvc", "add", "-q", "outputs/publish/shop", cwd=folder)
    run("git", "add", ".dvc", "outputs/publish/shop.dvc", "outputs/publish/.gitignore", cwd=folder)
    run("git", "commit", "-q", "-m", "Publish", cwd=folder)
    run("dvc", "push", "-q", cwd=folder)
    subprocess.run(["rm", "-rf", folder / ".dvc/cache", folder / "outputs"], check=True)
    run("git", "checkout", "-q", ".", cwd=folder)
    return folder


def test_dvc_get_and_import_bring_a_release_that_verifies(repository: Path, tmp_path: Path) -> None:
    run("dvc", "get", "-q", str(repository), RELEASE, "-o", "got", cwd=tmp_path)
    assert len(list(verify(tmp_path / "got"))) == 4
    run("git", "init", "-q", cwd=tmp_path)
    run("dvc", "init", "-q", cwd=tmp_path)
    run("dvc", "import", "-q", str(repository), RELEASE, "-o", "here", cwd=tmp_path)
    assert len(list(verify(tmp_path / "here"))) == 4
    assert str(repository) in (tmp_path / "here.dvc").read_text()
