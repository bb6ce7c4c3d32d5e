"""The search for mutants: which expressions change and how, and that a weak test lets one survive."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import mutants

ROOT = Path(__file__).parents[2]
SOURCE = """\
def is_adult(age: int = 17 + 1) -> bool:
    if age < 0:
        raise ValueError(f"{age + 1} years")
    return age >= 18
"""
NAMES = ["tests/toy/test_ages.py::test_ages"]
TEST = "from pipeline.toy.ages import is_adult\n\n\ndef test_ages() -> None:\n    assert {}\n"


@pytest.mark.parametrize(
    ("expression", "changed"),
    [
        ("age < 18", "(age <= 18)"),
        ("name in names", "(name not in names)"),
        ("items * seeds", "(items / seeds)"),
        ("cold and rare", "(cold or rare)"),
        ("not cold", "bool(cold)"),
        ("first if cold else last", "(last if cold else first)"),
        ("7", "8"),
        ("folder / 'index.json'", None),
        ("items", None),
    ],
)
def test_an_expression_has_one_mutant(expression: str, changed: str | None) -> None:
    text = mutants.mutated(ast.parse(expression, mode="eval").body)
    assert (text or "").strip("()") == (changed or "").strip("()")


def clone(folder: Path, assertion: str) -> Path:
    for name, text in (("pipeline", SOURCE), ("tests", TEST.format(assertion))):
        (folder / name / "toy").mkdir(parents=True)
        (folder / name / "toy" / ("ages.py" if name == "pipeline" else "test_ages.py")).write_text(text)
    return folder


def test_defaults_and_messages_have_no_mutant(tmp_path: Path) -> None:
    found = mutants.find_mutants(clone(tmp_path, "True"))
    assert [(mutant.line, mutant.text) for mutant in found] == [
        (2, "(age <= 0)"),
        (2, "1"),
        (4, "(age > 18)"),
        (4, "19"),
    ]
    assert {mutant.function for mutant in found} == {"is_adult"}


def test_a_mutant_keeps_its_name_where_lines_move(tmp_path: Path) -> None:
    found = mutants.find_mutants(clone(tmp_path, "True"))
    path = tmp_path / "pipeline/toy/ages.py"
    path.write_text(f"import math\n\n\n{SOURCE}")
    moved = mutants.find_mutants(tmp_path)
    assert [mutant.line + 3 for mutant in found] == [mutant.line for mutant in moved]
    assert [mutant.name for mutant in mutants.draw(found, 3, 7)] == [
        mutant.name for mutant in mutants.draw(moved, 3, 7)
    ]
    assert found[2].name == "pipeline/toy/ages.py:is_adult | return age >= 18 | age >= 18 -> (age > 18)"


def test_seeds_draw_other_mutants(tmp_path: Path) -> None:
    found = mutants.find_mutants(clone(tmp_path, "True"))
    assert len({tuple(mutants.draw(found, 4, seed)) for seed in range(5)}) > 1
    assert all(set(mutants.draw(found, 4, seed)) == set(found) for seed in range(5))


def test_packages_that_are_left_out_are_said(tmp_path: Path) -> None:
    (mutant, *_) = mutants.find_mutants(clone(tmp_path, "True"))
    assert mutant.package == "toy"
    assert mutants.outside(["web", "io"]) == " outside of io and web"
    assert mutants.outside([]) == ""


def test_functions_have_the_names_of_their_code() -> None:
    tree = ast.parse("class A:\n    def b(self):\n        def c(): pass\n        return c\n")
    assert [name for name, _ in mutants.functions_in(tree)] == ["A.b.<locals>.c", "A.b"]


def test_equivalent_mutants_exist_and_have_reasons() -> None:
    equivalent = json.loads(mutants.EQUIVALENT.read_text("utf-8"))
    assert equivalent.keys() <= {mutant.name for mutant in mutants.find_mutants(ROOT)}
    assert all(len(reason.split()) > 3 for reason in equivalent.values())


@pytest.mark.parametrize(
    ("assertion", "outcome"), [("is_adult(18)", "killed"), ("is_adult(30)", "SURVIVED"), ("True", "UNTESTED")]
)
def test_a_mutant_is_killed_by_a_test_that_calls_its_function(tmp_path: Path, assertion: str, outcome: str) -> None:
    copy = clone(tmp_path, assertion)
    mutant = mutants.find_mutants(copy)[2]
    tests = [] if outcome == "UNTESTED" else NAMES
    path = copy / "pipeline/toy/ages.py"
    time = path.stat().st_mtime_ns
    assert mutants.run_mutant(mutant, tests, copy, 60) == (outcome, NAMES if outcome == "killed" else [])
    assert (path.read_text(), path.stat().st_mtime_ns) == (SOURCE, time)


@pytest.mark.parametrize(("endless", "waiting"), [("__import__('time').sleep(99)", 1), ("sum(iter(int, 1))", 99)])
def test_tests_that_never_end_kill_a_mutant(
    tmp_path: Path, endless: str, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "WAITING", waiting)
    copy = clone(tmp_path, f"is_adult(18) or {endless}")
    mutant = mutants.find_mutants(copy)[2]
    assert mutants.run_mutant(mutant, NAMES, copy, 3) == ("killed", NAMES)


def test_a_function_that_no_test_calls_is_tested_by_the_file_of_its_module(tmp_path: Path) -> None:
    copy = clone(tmp_path, "is_adult(18)")
    mutant = mutants.find_mutants(copy)[2]
    assert mutants.file_of(mutant, copy) == ["tests/toy/test_ages.py"]
    assert mutants.file_of(mutant._replace(path="pipeline/toy/years.py"), copy) == []


def test_a_killed_mutant_does_not_run_again(tmp_path: Path) -> None:
    copy = clone(tmp_path / "clone", "is_adult(18)")
    found = mutants.find_mutants(copy)[2:]
    path = tmp_path / "outcomes.jsonl"
    notes = mutants.Notes(path)
    notes.add(found[0], "SURVIVED", [])
    notes.add(found[1], "killed", NAMES)
    tested = mutants.Tested({"pipeline/toy/ages.py:is_adult": set(NAMES)}, {NAMES[0]: 1.0})
    mutants.try_mutants(found, tested, copy, mutants.Notes(path), 60)
    assert len(path.read_text().splitlines()) == 3
    assert mutants.Notes(path).outcomes == {mutant.name: ("killed", NAMES) for mutant in found}


def test_a_test_that_fails_without_a_mutant_kills_none(tmp_path: Path) -> None:
    copy = clone(tmp_path, "is_adult(17)")
    found = mutants.find_mutants(copy)[2:]
    tested = mutants.Tested({"pipeline/toy/ages.py:is_adult": set(NAMES)}, {NAMES[0]: 1.0})
    notes = mutants.Notes(None)
    mutants.try_mutants(found, tested, copy, notes, 60)
    assert notes.outcomes == {mutant.name: ("UNTESTED", []) for mutant in found}


def test_calls_of_the_product_are_noted_by_test(tmp_path: Path) -> None:
    environment = os.environ | {"CALLS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    test = "tests/linalg/test_nearest.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "tests.hostile.calls",
        "-p",
        "no:cacheprovider",
        test,
    ]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    tested = mutants.read_calls(tmp_path)
    called = {name.partition(":")[0] for name in tested.tests}
    assert "pipeline/linalg/nearest.py" in called
    assert all(name.startswith("pipeline/") for name in called)
    assert all(name.startswith(test) for names in tested.tests.values() for name in names)


def test_tests_of_the_package_run_first_and_quick_ones_before_slow_ones(tmp_path: Path) -> None:
    lines = [
        {"test": "tests/a/a.py::slow", "phase": "call", "seconds": mutants.SECONDS, "functions": ["pipeline/a/p.py:f"]},
        {"test": "tests/a/b.py::medium", "phase": "call", "seconds": 9, "functions": ["pipeline/a/p.py:f"]},
        {"test": "tests/a/b.py::quick", "phase": "call", "seconds": 2, "functions": ["pipeline/a/p.py:f"]},
        {"test": "tests/b/c.py::fixed", "phase": "setup", "seconds": 0, "functions": ["pipeline/a/p.py:f"]},
        {"test": "tests/b/c.py::fixed", "phase": "call", "seconds": 1, "functions": []},
    ]
    (tmp_path / "1.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    tested = mutants.read_calls(tmp_path)
    mutant = mutants.Mutant("pipeline/a/p.py", "f", 1, 0, 0, "", "")
    assert tested.of(mutant) == ["tests/a/b.py::quick", "tests/a/b.py::medium"]
    everything = ["tests/a/b.py::quick", "tests/a/b.py::medium", "tests/a/a.py::slow", "tests/b/c.py::fixed"]
    assert tested.of(mutant, 200.0) == everything
    assert tested.of(mutant._replace(function="g")) == []
