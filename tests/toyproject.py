"""A project on a toy shop, run by DVC with this clone's code or a copy; and the parameter files as committed."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

PARAMS = """
datasets: [shop]
sources: {shop: {kind: sample, users: 150, items: 60}}
pretrain: {size: small, codes: 16, steps: 6, batch_size: 8, threads: 1, distill_from: [tfidf]}
encode: {encoders: [tfidf]}
beit3: {sets: [beit3, beit3-image-masked, beit3-text-masked]}
combine: {sets: {}}
train: {batch_size: 512, epochs: 2}
benchmark: {models: [bpr, alignrec], seeds: 2, features: [beit3, random], workers: 1}
study: {mask: {ratios: [0.5], seeds: 1}, tail: true}
report: {gallery_items: 4}
semantic_ids: {features: [beit3], codes: 8}
"""


COMMANDS = Path(sys.executable).parent
"""folder of `alignrec` and `dvc`; tests set it to that of `shims`"""


def copied(folder: Path) -> None:
    """Copy the packages of this clone with their bytecode, which other processes may be writing."""
    for name in ("pipeline", "stages", "schemas", "alignrec", "profiles"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc.*"))


def project(folder: Path) -> Path:
    """Create a project in `folder`, with toy parameters."""
    (folder / "params.yaml").write_text(PARAMS)
    run("alignrec", "new", cwd=folder)
    return folder


def environment() -> dict[str, str]:
    """Return an environment whose commands have the code of their folder, if any, or this clone's."""
    path = f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": f".{os.pathsep}{ROOT}"}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def committed(name: str) -> bytes:
    """Return a file as committed, as runs on other processors change the outputs; without git, the local one."""
    shown = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True)
    return shown.stdout if shown.returncode == 0 else (ROOT / name).read_bytes()


@cache
def shipped() -> Path:
    """Return a folder with the committed params.yaml and profiles/; without git, the local ones."""
    folder = Path(tempfile.mkdtemp(prefix="alignrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "params.yaml", folder)
    if "datasets: [sample]" not in (ROOT / "params.yaml").read_text():  # edited
        (folder / "params.yaml").write_bytes(committed("params.yaml"))
    return folder
