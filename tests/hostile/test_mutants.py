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
    assert {mutant.function for mutant in found} == {1}


@pytest.mark.parametrize(
    ("assertion", "outcome"), [("is_adult(18)", "killed"), ("is_adult(30)", "SURVIVED"), ("True", "UNTESTED")]
)
def test_a_mutant_is_killed_by_a_test_that_calls_its_function(tmp_path: Path, assertion: str, outcome: str) -> None:
    copy = clone(tmp_path, assertion)
    mutant = mutants.find_mutants(copy)[2]
    tests = [] if outcome == "UNTESTED" else ["tests/toy/test_ages.py"]
    assert mutants.run_mutant(mutant, tests, copy) == outcome
    assert (copy / "pipeline/toy/ages.py").read_text() == SOURCE


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


def test_the_quickest_tests_of_a_function_run_first(tmp_path: Path) -> None:
    lines = [
        {"test": "a.py::slow", "phase": "call", "seconds": mutants.SECONDS, "functions": ["p.py:1"]},
        {"test": "b.py::quick", "phase": "call", "seconds": 1, "functions": ["p.py:1"]},
        {"test": "c.py::fixed", "phase": "setup", "seconds": 0, "functions": ["p.py:9"]},
        {"test": "c.py::other", "phase": "call", "seconds": 2, "functions": ["p.py:5"]},
    ]
    (tmp_path / "1.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    tested = mutants.read_calls(tmp_path)
    mutant = mutants.Mutant("p.py", 1, 1, 0, 0, "")
    assert tested.of(mutant) == ["b.py::quick"]
    assert tested.of(mutant._replace(function=9)) == ["c.py::fixed", "c.py::other"]
