"""`make mutants`: change one expression of the product at random; a test must fail.

Each mutant is drawn by a seed among the comparisons, arithmetic, `and`, `or`, `not`, conditional expressions and
numbers in functions of pipeline/, except those of messages and defaults. A copy of the clone is changed in place, and
the tests that call the mutated function run, the quickest first. A survivor is a missing test, dead code or an
expression of the same meaning.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tests.hostile import runs

ROOT = Path(__file__).parents[2]
MODULES = (
    "numpy",
    "torch",
    "transformers",
    "duckdb",
    "pyarrow.parquet",
    "faiss",
    "scipy.sparse",
    "PIL.Image",
    "pytest",
)
"""imported once; each mutant's process is forked with them"""
SECONDS = 90.0
"""of tests per mutant, by their durations without a mutant"""
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
    function: int  # first line, decorators included, as code objects count
    line: int
    start: int  # offsets in the file's bytes
    end: int
    text: str  # what stands there instead


class Tested(NamedTuple):
    """Which tests call which function, and how long each takes."""

    tests: Mapping[str, set[str]]
    seconds: Mapping[str, float]

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests of a mutant, the quickest first, up to SECONDS in all."""
        chosen = []
        total = 0.0
        for test in sorted(self.tests.get(f"{mutant.path}:{mutant.function}", ()), key=self._order):
            total += self.seconds.get(test, 1.0)
            if chosen and total > SECONDS:
                break
            chosen.append(test)
        return chosen

    def _order(self, test: str) -> tuple[float, str]:
        return self.seconds.get(test, 1.0), test


def find_mutants(root: Path) -> list[Mutant]:
    """Return all mutants of pipeline/, in the order of files and lines."""
    mutants = []
    for path in sorted((root / "pipeline").rglob("*.py")):
        source = path.read_bytes()
        offsets = [0]
        for line in source.splitlines(keepends=True):
            offsets.append(offsets[-1] + len(line))
        seen = set()
        for function in functions_in(ast.parse(source)):
            for node in expressions_of(function):
                text = mutated(node)
                place = (offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset)
                if text is None or place in seen:
                    continue
                seen.add(place)
                name = path.relative_to(root).as_posix()
                mutants.append(Mutant(name, first_line(function), node.lineno, *place, text))
    return mutants


def functions_in(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield functions, inner ones before those around them."""
    for child in ast.iter_child_nodes(tree):
        yield from functions_in(child)
    if isinstance(tree, ast.FunctionDef):
        yield tree


def first_line(function: ast.FunctionDef) -> int:
    return min([function.lineno, *[decorator.lineno for decorator in function.decorator_list]])


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


def find_tests(copy: Path, folder: Path, workers: int) -> Tested:
    """Run all tests of the packages once, and note what each calls."""
    folder.mkdir()
    packages = sorted(path.name for path in (copy / "pipeline").iterdir() if (copy / "tests" / path.name).is_dir())
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", "tests.hostile.calls"]
    command += ["-p", "no:cacheprovider", *[f"tests/{name}" for name in packages]]
    environment = os.environ | {"PYTHONPATH": str(copy), "CALLS": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment)
    if done.returncode:
        sys.exit("tests fail without a mutant")
    return read_calls(folder)


def read_calls(folder: Path) -> Tested:
    tests = defaultdict(set)
    seconds = defaultdict(float)
    in_setup = defaultdict(set)
    by_file = defaultdict(set)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            found = json.loads(line)
            test = found["test"]
            file = test.partition("::")[0]
            by_file[file].add(test)
            seconds[test] += found["seconds"]
            for function in found["functions"]:
                if found["phase"] == "setup":
                    in_setup[function].add(file)
                else:
                    tests[function].add(test)
    for function, files in in_setup.items():
        for file in files:
            tests[function] |= by_file[file]
    return Tested(tests, seconds)


def run_mutant(mutant: Mutant, tests: Sequence[str], copy: Path) -> str:
    """Run the tests of a mutant in a process forked from this; return killed, SURVIVED or UNTESTED."""
    if not tests:
        return "UNTESTED"
    path = copy / mutant.path
    source = path.read_bytes()
    path.write_bytes(source[: mutant.start] + mutant.text.encode() + source[mutant.end :])
    try:
        process = get_context("fork").Process(target=run_tests, args=(tests, copy))
        process.start()
        process.join(3 * SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return "killed"
    finally:
        path.write_bytes(source)
    return "SURVIVED" if process.exitcode == 0 else "killed"


def run_tests(tests: Sequence[str], copy: Path) -> None:
    os.setsid()
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
    os._exit(int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests])))


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that run all tests once, to see what they call"
    )
    parser.add_argument("--calls", type=Path, help="a folder that keeps what each test calls; made if it is not there")
    parser.add_argument("--record", action="store_true", help="write the counts into runs.json and docs/robustness.md")
    arguments = parser.parse_args(words)

    counts: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copy_clone(Path(folder) / "clone")
        calls = arguments.calls or Path(folder) / "calls"
        tested = read_calls(calls) if calls.is_dir() else find_tests(copy, calls, arguments.workers)
        for module in MODULES:
            import_module(module)

        mutants = find_mutants(copy)
        print(f"{len(mutants):,} mutants", flush=True)
        for mutant in random.Random(arguments.seed).sample(mutants, arguments.mutants):
            start = time.perf_counter()
            tests = tested.of(mutant)
            outcome = run_mutant(mutant, tests, copy)
            counts[outcome] += 1
            seconds = time.perf_counter() - start
            was = (copy / mutant.path).read_bytes()[mutant.start : mutant.end].decode()
            where = f"{mutant.path}:{mutant.line}"
            print(f"{outcome} {where} | {was} -> {mutant.text} | {len(tests)} tests, {seconds:.0f} s", flush=True)

    survived = arguments.mutants - counts["killed"]
    print(f"{counts['killed']} of {arguments.mutants} killed", flush=True)
    if arguments.record:
        runs.record("mutants", arguments.mutants, "mutants", survived)
    return min(survived, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
