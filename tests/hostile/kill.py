"""`make kill KILLS=100`: kill -9 at random moments of stages and DVC; a rerun must restore every byte.

The pipeline runs once on a toy shop, undisturbed. For each kill a copy of it forgets a stage, or all that DVC knows.
`dvc repro` starts, its process group is killed, the two commands of `make repro` run again, and every file of the
outputs and all that `dvc.lock` says are compared. Stages take turns; the moment follows from the kill's number.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from alignrec.pipeline.io import sha256
from alignrec.pipeline.runtime.code import ROOT
from alignrec.pipeline.runtime.layout import WORK
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.stages.order import STAGES
from tests.toyproject import environment, project, run

DVC = "dvc"
"""instead of a stage: all stages are done, and DVC records them"""


class Reference(NamedTuple):
    folder: Path
    files: dict[str, str]  # path -> sha256
    overhead: float  # seconds of `dvc repro` where nothing is to do


def files(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of outputs, with leftover temporary files but no unfinished work, and dvc.lock."""
    base = folder / "outputs"
    paths = (p for p in sorted(base.rglob("*")) if p.is_file() and WORK not in p.parts)
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    made = {p.relative_to(base).as_posix(): sha256(p) for p in paths if p.suffix != ".lock"}
    return made | {"dvc.lock": json.dumps(lock, sort_keys=True)}


def undisturbed(folder: Path) -> Reference:
    folder.mkdir()
    run("dvc", "repro", cwd=project(folder))
    start = time.monotonic()
    run("dvc", "repro", cwd=folder)
    return Reference(folder, files(folder), time.monotonic() - start)


def killed(folder: Path, command: list[str], seconds: float) -> bool:
    """Kill a command's process group after a time; return False if it ended before."""
    with (folder / "repro.log").open("w") as log:
        repro = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            if repro.wait(seconds):
                sys.exit(f"dvc repro failed undisturbed: {(folder / 'repro.log').read_text()[-4000:]}")
            return False
        except subprocess.TimeoutExpired:
            os.killpg(repro.pid, signal.SIGKILL)
            repro.wait()
            return True


def trial(reference: Reference, target: str, number: int, base: Path) -> tuple[float, bool, list[str]]:
    rng = np.random.default_rng(seed_for("kill", number))
    folder = shutil.copytree(reference.folder, base / str(number), symlinks=True)
    costs = reference.folder.glob(f"outputs/{WORK}/{'*' if target == DVC else target}/shop/**/cost.json")
    longest = reference.overhead + sum(json.loads(cost.read_text())["seconds"] for cost in costs)
    seconds = float(rng.uniform(0, longest))
    if target == DVC:  # all stages run over existing outputs
        shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
        (folder / "dvc.lock").unlink()
    else:
        shutil.rmtree(folder / f"outputs/{target}/shop")
        shutil.rmtree(folder / f"outputs/{WORK}/{target}/shop")
    # forced, as DVC would take the stage's files from its cache
    command = ["dvc", "repro", "--no-run-cache", *([] if target == DVC else ["--force", "--single-item", target])]
    in_time = killed(folder, command, seconds)
    try:
        run("make", "--makefile", str(ROOT / "Makefile"), "recover", cwd=folder)
        run(*command, cwd=folder)
        actual = files(folder)
        names = sorted(actual.keys() | reference.files.keys())
        differing = [name for name in names if actual.get(name) != reference.files.get(name)]
    except AssertionError as e:  # of `run`: what the command printed
        differing = [f"the next run fails: {e}"]
    if not differing:
        shutil.rmtree(folder)
    return seconds, in_time, differing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.kill", description=__doc__)
    parser.add_argument("target", nargs="*", default=[*STAGES, DVC], help="stages, or dvc; all by default")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill: 100 goes on after 0 .. 99")
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="kill-"))
    reference = undisturbed(base / "undisturbed")
    print(f"undisturbed: {len(reference.files)} files, DVC itself takes {reference.overhead:.1f} s", flush=True)
    number = done = 0
    while done < given.kills:
        target = given.target[number % len(given.target)]
        seconds, in_time, differing = trial(reference, target, given.first + number, base)
        number, done = number + 1, done + in_time
        outcome = f"DIFFERS: {', '.join(differing)}" if differing else "the same" if in_time else "it had ended"
        print(f"kill {done} of {given.kills}: {target} after {seconds:.1f} s: {outcome}", flush=True)
        if differing:
            sys.exit(f"kept: {base / str(given.first + number - 1)}, reference: {reference.folder}")
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
