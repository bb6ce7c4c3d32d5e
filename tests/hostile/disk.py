"""`make faults`: a disk that fails at any call of a toy run; the next run must restore every byte.

A library under `LD_PRELOAD` (disk.c) counts the calls of each stage on files of the outputs, and lets the n-th fail:
writes that are short, a full disk, input/output errors, renames that fail or are lost, and files that change after they
were hashed. The stage then ends with one line, or with the right bytes. It runs again on a sound disk, after the stages
that its message names, and every output is compared with that of an undisturbed run.
"""

import argparse
import contextlib
import ctypes
import io as text_io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

sys.path.append(str(Path(__file__).parents[1]))  # what tests share lies there

import pictures

from tests.hostile import runs

LIBRARY = Path(__file__).with_name("disk.c")
FAULTS = ("short", "full", "read", "rename", "lost", "change", "sync", "link", "remove")
"""kinds of faults, in the order of disk.c"""
ENCODERS = ["tfidf", "descriptors"]
LONGEST = 120
"""seconds of a stage"""
USED = (
    *("sources.download", "dataset.interactions", "images.fetcher", "encoders.tfidf", "encoders.descriptors"),
    *("features.encode", "features.combine", "features.graph", "evaluation.probe.dataset"),
    *("evaluation.probe.behaviour", "evaluation.probe.cold_items", "release.build"),
    *("release.read", "release.fitted", "release.recipe", "report.outputs"),
)
LOADED = (
    *("torch", "duckdb", "faiss", "scipy.sparse.linalg", "PIL.Image", "scipy.linalg", "multiprocessing.synchronize"),
    *("pyarrow.dataset", "pyarrow.pandas_compat", "alignrec.commands.terminal"),
    *(f"alignrec.pipeline.{module}" for module in USED),
)
"""modules of the stages, which each process inherits"""
FAILED = re.compile(r"run `alignrec (\w+)")


class Fault(NamedTuple):
    step: int  # position of the stage, or of its item, in `steps`
    kind: str  # one of FAULTS
    number: int  # of the call, from 1


class Outcome(NamedTuple):
    """How a stage ended in its process."""

    error: str  # one line of the terminal, or empty
    crash: str  # traceback, or empty
    calls: dict[str, int]


def compiled(folder: Path) -> Path | None:
    """Compile the library; return its path, or None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    path = folder / "disk.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(path), str(LIBRARY), "-lpthread"]
    subprocess.run(command, check=True)
    return path


def write_shop(folder: Path) -> Path:
    """Write 24 items with pictures, 12 users, and parameters; return the path of these."""
    rng = np.random.default_rng(0)
    items = [{"item": f"i{number}", "title": f"thing {number % 5} {number % 7}"} for number in range(24)]
    for number, item in enumerate(items[:20]):
        item["image_urls"] = f"{number}.jpg"
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (folder / f"{number}.jpg").write_bytes(pictures.plain(colour))
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    rows = [f"u{user},i{item},5" for user in range(12) for item in rng.permutation(24)[:9]]
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating", *rows, ""]))

    source = {"kind": "tabular", "interactions": str(folder / "ratings.csv"), "items": str(folder / "items.jsonl")}
    params = {
        "datasets": ["shop"],
        "sources": {"shop": source},
        "interactions": {"user_core": 1, "item_core": 1},
        "images": {"shard_rows": 16},
        "encode": {"encoders": ENCODERS, "shard_rows": 16},
        "beit3": {"sets": []},
        "combine": {"sets": {"linear": {}}, "controls": ["random"]},
        "graph": {"k": 4},
        "train": {"features": "linear"},
        "probe": {"ks": [2, 5]},
        "benchmark": {"features": ["linear"], "models": ["alignrec"], "ks": [1, 2]},
        "publish": {"features": ["linear", *ENCODERS], "interactions": True},
    }
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


class Shop:
    """A toy shop whose stages run in forked processes. Nothing runs in this one, which so has no threads."""

    def __init__(self, base: Path) -> None:
        from alignrec.commands.params import load
        from alignrec.pipeline.runtime import code
        from alignrec.stages.order import STAGES
        from tests.hostile import differential

        for module in LOADED:
            import_module(module)
        code.versions()
        for name in differential.RUN:
            code.fingerprint(f"alignrec.stages.{name}")

        self.base = base
        self.params = load(write_shop(base), "shop")
        self.steps = []
        for name in differential.RUN:
            for item in ENCODERS if STAGES[name].per else [""]:
                self.steps.append((name, item))

    def before(self, step: int) -> Path:
        """Return the folder with the outputs of all earlier steps."""
        return self.base / f"before-{step}"

    def run(self, step: int, folder: Path, fault: Fault | None = None) -> Outcome:
        """Run a step in a process of its own."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with contextlib.suppress(BaseException):
                outcome = self._perform(step, folder, fault)
                with os.fdopen(writing, "w") as file:
                    json.dump(outcome, file)
            os._exit(0)

        os.close(writing)
        with os.fdopen(reading) as file:
            answer = file.read()
        _, status = os.waitpid(child, 0)
        if not answer:
            return Outcome("", f"the process ended with {status}", {})
        return Outcome(*json.loads(answer))

    def _perform(self, step: int, folder: Path, fault: Fault | None) -> Outcome:
        from alignrec.commands.terminal import describe_error
        from alignrec.pipeline.runtime.layout import Layout
        from alignrec.pipeline.runtime.run import Run
        from alignrec.pipeline.runtime.stage import perform
        from alignrec.stages.order import STAGES

        library = ctypes.CDLL(None)
        library.disk_watch.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_long)
        library.disk_calls.restype = ctypes.c_long
        name, item = self.steps[step]
        outputs = folder / "outputs"
        error = crash = ""
        signal.alarm(LONGEST)
        tempfile.tempdir = str(folder / "outputs")
        quiet = text_io.StringIO()
        kind, number = (FAULTS.index(fault.kind), fault.number) if fault else (0, 0)
        # stages that do not resume keep no hashes of what they write, until they record it
        spared = b"" if STAGES[name].resumes else os.fsencode(Layout(outputs, "shop").work(name, item))
        library.disk_watch(os.fsencode(outputs), spared, kind, number)
        try:
            with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
                perform(Run(name, "shop", self.params, outputs, item), STAGES[name], lambda _: None)
        except BaseException as e:
            library.disk_watch(b"", b"", 0, 0)
            message = describe_error(e)
            error = message or ""
            if message is None or "\n" in message:
                crash = "".join(traceback.format_exception(e))
        calls = {kind: library.disk_calls(number) for number, kind in enumerate(FAULTS)}
        return Outcome(error, crash, calls)

    def count(self) -> list[Fault]:
        """Run all steps undisturbed; return every fault that could hit them."""
        self.before(0).mkdir()
        (self.before(0) / "outputs").mkdir()
        faults = []
        for step in range(len(self.steps)):
            following = copied(self.before(step), self.before(step + 1))
            outcome = self.run(step, following)
            if outcome.error or outcome.crash:
                sys.exit(f"{self.steps[step]} fails undisturbed: {outcome.error}{outcome.crash}")
            for kind, calls in outcome.calls.items():
                faults += [Fault(step, kind, number) for number in range(1, calls + 1)]
        return faults

    def trial(self, fault: Fault) -> tuple[str, str]:
        """Return how a fault ended (`right` or `error`), and what is wrong with that, if anything."""
        folder = copied(self.before(fault.step), self.base / "trial")
        outcome = self.run(fault.step, folder, fault)
        wrong = outcome.crash
        ended = "error" if outcome.error else "right"
        if not outcome.error and not wrong:
            wrong = self.compare(fault.step, fault.step, folder, "it ends without an error")
        if not wrong:
            wrong = self.recover(fault.step, folder)
        remove(folder)
        return ended, wrong

    def recover(self, step: int, folder: Path) -> str:
        """Run a step again, after the earlier ones that it asks for; return what is wrong then."""
        first = step
        for _ in range(len(self.steps)):
            for again in range(first, step + 1):
                outcome = self.run(again, folder)
                if outcome.error or outcome.crash:
                    break
            else:
                return self.compare(first, step, folder, "after the next run")
            asked = FAILED.search(outcome.error)
            names = [name for name, _ in self.steps]
            if not asked or asked[1] not in names or names.index(asked[1]) >= first:
                break
            first = names.index(asked[1])
        return f"the next run fails: {outcome.error}{outcome.crash}"

    def compare(self, first: int, step: int, folder: Path, when: str) -> str:
        """Return what differs of the outputs of steps that ran; rot of others is found by those that read them."""
        ran = {name for name, _ in self.steps[first : step + 1]}
        expected, actual = (files(where, ran) for where in (self.before(step + 1), folder))
        names = sorted(expected.keys() | actual.keys())
        differing = [name for name in names if expected.get(name) != actual.get(name)]
        return f"{when}, {', '.join(differing)} differ" if differing else ""


def copied(folder: Path, to: Path) -> Path:
    """Copy a folder, with times and hard links as they are."""
    remove(to)
    subprocess.run(["cp", "-a", str(folder), str(to)], check=True)
    return to


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def files(folder: Path, stages: Collection[str]) -> dict[str, bytes]:
    """Return path -> content of the outputs of these stages."""
    outputs = folder / "outputs"
    paths = [path for stage in stages for path in (outputs / stage).rglob("*") if path.is_file()]
    return {path.relative_to(outputs).as_posix(): path.read_bytes() for path in paths}


def choose(faults: Sequence[Fault], n: int, seed: int) -> list[Fault]:
    """Return a sample of at most n faults, as many of each kind as of each other where there are enough."""
    from alignrec.pipeline.runtime.seeds import seed_for

    rng = np.random.default_rng(seed_for("faults", seed))
    by_kind = {kind: [fault for fault in faults if fault.kind == kind] for kind in FAULTS}
    queues = [[group[i] for i in rng.permutation(len(group))] for group in by_kind.values()]
    chosen: list[Fault] = []
    while len(chosen) < min(n, len(faults)):
        for queue in queues:
            chosen += queue[:1]
            del queue[:1]
    return chosen[:n]


def try_faults(base: Path, n: int | None, seed: int, part: tuple[int, int] = (1, 1)) -> Iterator[dict[str, Any]]:
    """Yield the calls that were counted, then the outcome of each fault."""
    shop = Shop(base)
    faults = shop.count()
    yield {"calls": len(faults), "by_kind": Counter(fault.kind for fault in faults)}
    chosen = faults if n is None else choose(faults, n, seed)
    for fault in chosen[part[0] - 1 :: part[1]]:
        ended, wrong = shop.trial(fault)
        yield {
            "stage": " ".join(filter(None, shop.steps[fault.step])),
            **fault._asdict(),
            "ended": ended,
            "wrong": wrong,
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.disk", description=__doc__)
    parser.add_argument("--faults", type=int, help="a sample of so many; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--part", default="1/1", help="2/3: of three processes that share the faults, the second")
    parser.add_argument("--record", action="store_true", help="note the run in runs.json and docs/robustness.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        if "disk.so" not in os.environ.get("LD_PRELOAD", ""):
            library = compiled(Path(folder))
            if library is None:
                sys.exit("a disk that fails needs 64-bit Linux and a C compiler called cc")
            environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
            return subprocess.run(
                [sys.executable, "-m", "tests.hostile.disk", *sys.argv[1:]], env=environment
            ).returncode

        part, parts = map(int, given.part.split("/"))
        failed = done = 0
        for row in try_faults(Path(folder), given.faults, given.seed, (part, parts)):
            failed += bool(row.get("wrong"))
            done += "ended" in row
            if "calls" in row or row["wrong"]:
                print(json.dumps(row), flush=True)
    print(f"{done} faults, {failed} wrong")
    if given.record:
        runs.record("faults", done, "faults", failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
