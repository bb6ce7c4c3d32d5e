"""The parameter files as committed, so that local edits of params.yaml fail no test."""

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def root() -> Path:
    """Return a folder with the committed params.yaml and profiles/; without git, the local ones."""
    folder = Path(tempfile.mkdtemp(prefix="alignrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "params.yaml", folder)
    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True)
    if committed.returncode == 0 and b"datasets: [sample]" in committed.stdout and _is_edited():
        (folder / "params.yaml").write_bytes(committed.stdout)
    return folder


def _is_edited() -> bool:
    """Return whether params.yaml builds something other than the sample, as a user's edit does."""
    return "datasets: [sample]" not in (ROOT / "params.yaml").read_text()
