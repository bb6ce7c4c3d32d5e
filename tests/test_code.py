"""What an edit re-runs: the import closure of a stage, and what of its files counts."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import code
from pipeline.experiment.tables import PLANS, TABLES
from stages.order import STAGES


def names(module: str) -> set[str]:
    return {str(p.relative_to(code.ROOT)) for p in code.closure(module)}


def test_closure_follows_imports_but_not_the_harness() -> None:
    assert names("pipeline.facts.table") == {
        f"pipeline/{name}.py"
        for name in (
            "evaluation/cutoff",
            "evaluation/cutoff",
            "evaluation/evidence",
            "evaluation/statistics",
            "facts/difference",
            "facts/table",
            "facts/words",
            "models/__init__",
        )
    }
    assert "pipeline/config/__init__.py" not in names("stages.interactions")
    assert "pipeline/stage.py" not in names("stages.train")
    assert "pipeline/pretrain/frozen.py" not in names("stages.pretrain")


def test_packages_are_named_once() -> None:
    listed = code.packages("stages.benchmark")
    assert "pipeline/models" in listed
    assert "pipeline/models/base.py" not in listed
    assert "pipeline/io" in listed


def test_the_released_recommender_does_not_depend_on_its_baselines() -> None:
    used = names("stages.train")
    assert "pipeline/models/alignrec.py" in used
    assert "pipeline/models/bm3.py" not in used


def test_a_cell_depends_on_what_trains_it_alone() -> None:
    """Else an edit of a table, or of another kind of model, would train everything again."""
    used = names("pipeline.experiment.cell") | names("pipeline.experiment.pairs")
    assert {path for path in used if path.startswith("pipeline/experiment/")} == {
        f"pipeline/experiment/{name}.py" for name in ("cell", "pairs")
    }
    assert not {path for path in used if path.startswith("pipeline/study/")}


def test_the_study_does_not_depend_on_the_tables_of_the_benchmark() -> None:
    used = set().union(*(names(registry.module(name)) for registry in (PLANS, TABLES) for name in registry))
    assert "pipeline/experiment/tables/tail.py" in used
    assert not used & {"pipeline/experiment/tables/benchmark.py", "pipeline/experiment/plans/search.py"}
    assert "pipeline/experiment/tables/tail.py" not in names("stages.benchmark")


CHUNKS = {"pipeline/encode/chunks.py"}
"""how teachers read a text that is longer than they take"""


def test_pretraining_depends_on_no_other_encoder_and_on_no_transport() -> None:
    used = names("stages.pretrain")
    assert "pipeline/beit3/network.py" in used
    assert not {path for path in used if path.startswith(("pipeline/encode/", "pipeline/http/"))} - CHUNKS
    assert "pipeline/beit3/inference.py" not in used
    assert "pipeline/ops/sparse.py" not in used


def test_how_bytes_travel_shapes_no_result() -> None:
    assert not {path for stage in STAGES for path in names(f"stages.{stage}") if path.startswith("pipeline/http/")}


def test_files_that_are_no_python_count_where_they_are_named() -> None:
    assert {"pipeline/report/page.html", "pipeline/report/base.html"} <= names("stages.report")
    assert "pipeline/release/card.md" in names("stages.publish")
    assert "pipeline/release/card.md" not in names("stages.report")


def test_functions_own_imports_count() -> None:
    assert "pipeline/report/terminal.py" in names("stages.cli")


Edit = Callable[[str, str], str]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """Write a file of a small tree, and return the fingerprint of its module a as another process finds it."""

    def edit(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        fresh = types.ModuleType("code")  # which remembers no file
        fresh.__file__ = code.__file__
        exec(Path(code.__file__).read_text(encoding="utf-8"), vars(fresh))
        vars(fresh).update(ROOT=tmp_path, HARNESS=set())
        return str(fresh.fingerprint("pipeline.a"))

    return edit


def test_what_a_file_says_counts_and_not_how(edited: Edit) -> None:
    edited("pipeline/a.py", "from pipeline import b\n")
    before = edited("pipeline/b.py", "def f(x):\n    return x + 1\n")
    said = '"""Docstring."""\n\n# comment\nY = """text"""\n'
    assert edited("pipeline/b.py", 'def f(x):\n    """Add."""\n    # one\n    return (x + 1)\n') == before
    assert edited("pipeline/b.py", "def f(x):\n    return x + 2\n") != before
    assert edited("pipeline/b.py", said) != edited("pipeline/b.py", said.replace("text", "other"))


def test_only_what_is_used_of_a_package_that_re_exports(edited: Edit) -> None:
    edited("pipeline/a.py", "import schemas\n\nX = schemas.ONE\n")
    edited("schemas/__init__.py", '"""Tables."""\n\nfrom schemas.one import ONE\nfrom schemas.two import TWO\n')
    edited("schemas/two.py", "TWO = 2\n")
    before = edited("schemas/one.py", "ONE = 1\n")
    assert edited("schemas/two.py", "TWO = 3\n") == before
    assert edited("schemas/one.py", "ONE = 2\n") != before


def test_imports_for_types_alone_do_not_count(edited: Edit) -> None:
    edited("pipeline/a.py", "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from pipeline import b\n")
    assert edited("pipeline/b.py", "x = 1\n") == edited("pipeline/b.py", "x = 2\n")
