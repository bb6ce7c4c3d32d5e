"""`make mutants`: change one expression of the product at random; a test must fail.

Each mutant is drawn by a seed among the comparisons, arithmetic, `and`, `or`, `not`, conditional expressions and
numbers in functions of pipeline/, except those of messages and defaults. A copy of the clone is changed in place, and
the tests that call the mutated function run, those of its package and the quickest first. A survivor is a missing test,
dead code or an expression of the same meaning; those that a person found to be the last are listed in equivalent.json.

What a test calls in other processes is not seen, so tests marked as slow and the files of LEFT_OUT do not take part,
except that a function which no test calls is tested by the file that is named after its module.
"""

import argparse
import ast
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain, groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from tests.hostile import runs
from tests.hostile.calls import path_of

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.json")
"""name of a mutant -> why no test can notice it"""
LEFT_OUT = (
    "release/test_docs.py",
    "release/test_export_docs.py",
    "release/test_light.py",
    "release/test_memory.py",
    "report/test_browser.py",
    "runtime/test_cluster.py",
    "runtime/test_parallel.py",
    "runtime/test_start.py",
)
"""files of tests that work in other processes"""
MODULES = (
    "numpy",
    "torch",
    "transformers",
    "duckdb",
    "pyarrow.parquet",
    "faiss",
    "scipy.sparse",
    "scipy.stats",
    "hypothesis",
    "PIL.Image",
    "pytest",
)
"""imported once; each mutant's process is forked with them"""
SECONDS = 90.0
"""of tests per mutant, by their durations without a mutant"""
PATIENCE = 5
"""times these durations that tests may compute, and START"""
START = 60.0
"""seconds of CPU until the first test runs"""
WAITING = 10
"""times as long that they may take, as other processes may take most of the time"""
UNKNOWN = 20.0
"""seconds of tests that were not timed"""
COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}


class Mutant(NamedTuple):
    path: str  # in the clone
    function: str  # its qualified name
    line: int
    start: int  # offsets in the file's bytes
    end: int
    text: str  # what stands there instead
    name: str  # the function and the change, unchanged by other edits of the file

    @property
    def package(self) -> str:
        return Path(self.path).parts[1]


class Tested(NamedTuple):
    """Which tests call which function, and how long each takes."""

    tests: Mapping[str, set[str]]
    seconds: Mapping[str, float]

    def of(self, mutant: Mutant, limit: float = SECONDS) -> list[str]:
        """Return the tests of a mutant, those of its package and the quickest first, up to `limit` seconds in all."""
        package = f"tests/{mutant.package}/"
        found = self.tests.get(f"{mutant.path}:{mutant.function}", set())
        ordered = sorted(found, key=lambda test: (not test.startswith(package), self.seconds[test], test))
        chosen = []
        total = 0.0
        for test in ordered:
            total += self.seconds[test]
            if chosen and total > limit:
                break
            chosen.append(test)
        return chosen

    def limit(self, tests: Sequence[str]) -> float:
        """Return the seconds of CPU after which tests count as endless."""
        return START + PATIENCE * sum(self.seconds[test] for test in tests)


def find_mutants(root: Path) -> list[Mutant]:
    """Return all mutants of pipeline/, in the order of files and lines."""
    mutants = []
    for path in sorted((root / "pipeline").rglob("*.py")):
        source = path.read_bytes()
        lines = source.splitlines(keepends=True)
        offsets = [0]
        for line in lines:
            offsets.append(offsets[-1] + len(line))

        seen = set()
        names: Counter[str] = Counter()
        for function, node in functions_in(ast.parse(source)):
            for expression in expressions_of(node):
                text = mutated(expression)
                start = offsets[expression.lineno - 1] + expression.col_offset
                end = offsets[expression.end_lineno - 1] + expression.end_col_offset
                if text is None or (start, end) in seen:
                    continue
                seen.add((start, end))
                file = path.relative_to(root).as_posix()
                statement = lines[expression.lineno - 1].decode().strip()
                name = f"{file}:{function} | {statement} | {source[start:end].decode()} -> {text}"
                names[name] += 1
                if names[name] > 1:
                    name += f" | {names[name]}"
                mutants.append(Mutant(file, function, expression.lineno, start, end, text, name))
    return mutants


def draw(mutants: Sequence[Mutant], n: int, seed: int) -> list[Mutant]:
    """Return a sample that stays nearly the same when the product changes a little."""
    return sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.name}".encode()).digest())[:n]


def functions_in(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield functions and their qualified names, inner ones before those around them."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef):
            yield from functions_in(child, f"{outer}{child.name}.<locals>.")
            yield f"{outer}{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from functions_in(child, f"{outer}{child.name}.")
        else:
            yield from functions_in(child, outer)


def expressions_of(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """Yield the expressions of a function's body that are no annotation and part of no message."""
    waiting: list[ast.AST] = function.body[::-1]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise | ast.JoinedStr):
            continue
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            children = node.body if isinstance(node.body, list) else [node.body]
        if isinstance(node, ast.AnnAssign):
            children = [] if node.value is None else [node.value]
        if isinstance(node, ast.expr):
            yield node
        waiting += reversed(children)


def mutated(node: ast.expr) -> str | None:
    """Return the source of a changed expression in parentheses, or None if this kind is not changed."""
    match node:
        case ast.Compare(ops=[first, *_]) if type(first) in COMPARED:
            changed: ast.expr = ast.Compare(node.left, [COMPARED[type(first)](), *node.ops[1:]], node.comparators)
        case ast.BinOp(right=ast.Constant(value=str()) | ast.JoinedStr()):
            return None  # a path or a text
        case ast.BinOp(left=left) if type(node.op) in COMPUTED and not isinstance(left, ast.Constant):
            changed = ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)
        case ast.BoolOp():
            changed = ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            changed = ast.Call(ast.Name("bool"), [node.operand], [])
        case ast.IfExp():
            changed = ast.IfExp(node.test, node.orelse, node.body)
        case ast.Constant() if type(node.value) in (int, float):
            changed = ast.Constant(node.value + 1)
        case _:
            return None
    text = ast.unparse(ast.fix_missing_locations(ast.Expression(changed)))
    return text if isinstance(node, ast.Constant) else f"({text})"


def copy_clone(folder: Path) -> Path:
    """Copy the files that git tracks, as they are now, with their links."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def compile_files(copy: Path) -> None:
    """Import the tests and the product once, so that no process of a mutant compiles them."""
    subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-qq"], cwd=copy, stdout=subprocess.DEVNULL)


def find_tests(copy: Path, folder: Path, workers: int) -> None:
    """Run the tests of the packages, and note what each calls; those that did not change since are not run again."""
    folder.mkdir(exist_ok=True)
    packages = {path.name for path in (copy / "pipeline").iterdir()}
    waiting = []
    for file in sorted((copy / "tests").rglob("test_*.py")):
        name = file.relative_to(copy / "tests").as_posix()
        noted = path_of(folder, f"tests/{name}")
        is_known = noted.exists() and noted.stat().st_mtime >= file.stat().st_mtime
        if name.partition("/")[0] in packages and name not in LEFT_OUT and not is_known:
            waiting.append(f"tests/{name}")
    if not waiting:
        return
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", "tests.hostile.calls", "-m", "not slow"]
    environment = os.environ | {"PYTHONPATH": str(copy), "CALLS": str(folder)}
    done = subprocess.run([*command, *waiting], cwd=copy, env=environment)
    if done.returncode:
        print("tests that fail without a mutant are left out", flush=True)
    for name in waiting:
        path_of(folder, name).touch()  # of a file whose tests are all slow, too


def read_calls(folder: Path) -> Tested:
    tests = defaultdict(set)
    seconds: dict[str, float] = defaultdict(lambda: UNKNOWN)
    in_setup = defaultdict(set)
    by_file = defaultdict(set)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            found = json.loads(line)
            test = found["test"]
            file = test.partition("::")[0]
            if found["phase"] == "setup":
                for function in found["functions"]:
                    in_setup[function].add(file)
                continue
            by_file[file].add(test)
            seconds[test] = found["seconds"]
            for function in found["functions"]:
                tests[function].add(test)
    for function, files in in_setup.items():
        for file in files:
            tests[function] |= by_file[file]
    return Tested(tests, seconds)


def file_of(mutant: Mutant, copy: Path) -> list[str]:
    """Return the file of tests that is named after the module, if there is one."""
    module = Path(mutant.path)
    name = f"tests/{module.parent.relative_to('pipeline').as_posix()}/test_{module.name}"
    return [name] if (copy / name).exists() else []


def run_mutant(mutant: Mutant, tests: Sequence[str], copy: Path, limit: float) -> tuple[str, list[str]]:
    """Run the tests of a mutant; return killed, SURVIVED or UNTESTED, and the tests that killed it."""
    if not tests:
        return "UNTESTED", []
    path = copy / mutant.path
    source = path.read_bytes()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(source[: mutant.start] + mutant.text.encode() + source[mutant.end :])
    try:
        failed = run_tests(tests, copy, limit, "-x")
    finally:
        path.write_bytes(source)
        os.utime(path, ns=times)  # so that its bytecode is right again
    return ("killed", failed) if failed else ("SURVIVED", [])


def run_tests(tests: Sequence[str], copy: Path, limit: float, *options: str) -> list[str]:
    """Run tests in a process forked from this; return those that failed, or all if it broke off."""
    failed = copy / "failed.txt"
    failed.unlink(missing_ok=True)
    process = get_context("fork").Process(target=perform, args=(tests, copy, failed, limit, options))
    process.start()
    process.join(WAITING * limit)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode == 0:
        return []
    return failed.read_text("utf-8").splitlines() if failed.exists() else list(tests)


class Failures:
    """A pytest plugin that writes the tests that failed into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")


def perform(tests: Sequence[str], copy: Path, failed: Path, limit: float, options: Sequence[str]) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 5))
    os.chdir(copy)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *[path for path in sys.path if path not in ("", str(ROOT))]]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "alignrec")]:
        del sys.modules[name]
    os.environ["PYTHONPATH"] = str(copy)
    pytest = import_module("pytest")
    words = ["-q", "-n", "0", "-p", "no:cacheprovider", *options, *tests]
    os._exit(int(pytest.main(words, plugins=[Failures(failed)])))


class Notes:
    """How mutants ended, kept in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.outcomes: dict[str, tuple[str, list[str]]] = {}
        for line in path.read_text("utf-8").splitlines() if path and path.exists() else ():
            name, outcome, killers = json.loads(line)
            self.outcomes[name] = outcome, killers

    def add(self, mutant: Mutant, outcome: str, killers: Sequence[str]) -> None:
        self.outcomes[mutant.name] = outcome, list(killers)
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([mutant.name, outcome, list(killers)]) + "\n")


def try_mutants(chosen: Sequence[Mutant], tested: Tested, copy: Path, notes: Notes, seconds: float) -> None:
    """Note how mutants end that no test has killed yet. A test that fails without a mutant kills none."""
    waiting = [mutant for mutant in chosen if notes.outcomes.get(mutant.name, ("", []))[0] != "killed"]
    unreliable: set[str] = set()
    while waiting:
        for mutant in waiting:
            start = time.perf_counter()
            tests = tested.of(mutant, seconds) or file_of(mutant, copy)
            tests = [test for test in tests if test not in unreliable]
            outcome, killers = run_mutant(mutant, tests, copy, tested.limit(tests))
            notes.add(mutant, outcome, killers)
            took = f"{len(tests)} tests, {time.perf_counter() - start:.0f} s"
            print(f"{outcome} line {mutant.line} of {mutant.name} | {took}", flush=True)

        killers_of = {mutant: notes.outcomes[mutant.name][1] for mutant in chosen}
        killing = sorted(set(chain(*killers_of.values())) - unreliable)
        failing: set[str] = set()
        for _, group in groupby(killing, key=lambda test: test.partition("::")[0]):
            of_file = list(group)
            failing |= set(run_tests(of_file, copy, tested.limit(of_file)))
        if failing:
            print(f"fail without a mutant: {', '.join(sorted(failing))}", flush=True)
        unreliable |= failing
        waiting = [mutant for mutant, killers in killers_of.items() if failing & set(killers)]


def outside(packages: Sequence[str]) -> str:
    """Return what follows `mutants` where packages are left out."""
    return f" outside of {' and '.join(sorted(packages))}" if packages else ""


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="processes that run all tests once")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of tests per mutant")
    parser.add_argument("--calls", type=Path, help="a folder that keeps what each test calls; made if it is not there")
    parser.add_argument("--outcomes", type=Path, help="a file that keeps how each ended; killed ones do not run again")
    parser.add_argument("--without", nargs="*", default=[], help="packages of pipeline/ that are not changed")
    parser.add_argument("--record", action="store_true", help="write the counts into runs.json and docs/robustness.md")
    arguments = parser.parse_args(words)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copy_clone(Path(folder) / "clone")
        compile_files(copy)
        calls = arguments.calls or Path(folder) / "calls"
        find_tests(copy, calls, arguments.workers)
        for module in MODULES:
            import_module(module)

        mutants = [mutant for mutant in find_mutants(copy) if mutant.package not in arguments.without]
        print(f"{len(mutants):,} mutants", flush=True)
        drawn = draw(mutants, arguments.mutants, arguments.seed)
        equivalent = json.loads(EQUIVALENT.read_text("utf-8"))
        chosen = [mutant for mutant in drawn if mutant.name not in equivalent]
        notes = Notes(arguments.outcomes)
        try_mutants(chosen, read_calls(calls), copy, notes, arguments.seconds)

    n_equivalent = len(drawn) - len(chosen)
    survived = [mutant for mutant in chosen if notes.outcomes[mutant.name][0] != "killed"]
    n_killed = len(chosen) - len(survived)
    print(f"{len(drawn)} mutants: {n_killed} killed, {n_equivalent} equivalent, {len(survived)} survived")
    if arguments.record:
        unit = f"mutants{outside(arguments.without)}, {n_equivalent} of them equivalent"
        runs.record("mutants", len(drawn), unit, len(survived))
    return min(len(survived), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
