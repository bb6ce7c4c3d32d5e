"""Code fingerprints: the import closure of a stage, and which changes of its files count."""

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.layout import Layout, StageFile
from alignrec.stages.order import STAGES


def names(module: str) -> set[str]:
    return {str(p.relative_to(code.ROOT)) for p in code.import_closure(module)}


TABLE = ("models/cutoff", "evaluation/evidence", "evaluation/statistics", "report/table")


def test_little_depends_on_what_does_not_shape_it() -> None:
    own = {f"pipeline/{name}.py" for name in (*TABLE, "models/__init__")}
    assert names("alignrec.pipeline.report.table") == own
    used = names("alignrec.pipeline.evaluation.benchmark.cell")  # else a table would train again
    cells = {path for path in used if path.startswith("pipeline/evaluation/benchmark/")}
    assert cells == {f"pipeline/evaluation/benchmark/{name}.py" for name in ("cell",)}
    used = names("alignrec.stages.study")
    assert "pipeline/evaluation/benchmark/slices.py" in used
    assert "pipeline/evaluation/benchmark/results.py" not in used
    encoders = {path for path in names("alignrec.stages.pretrain") if path.startswith("pipeline/encoders/")}
    assert encoders <= {f"pipeline/encoders/{name}.py" for name in ("chunks", "hub", "params", "registry", "settings")}
    assert not {
        path for stage in STAGES for path in names(f"alignrec.stages.{stage}") if path.startswith("pipeline/web/")
    }


Edit = Callable[[str, str], str]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """Edit a file of a small tree; return the fingerprint of its module a in a fresh process."""

    def edit(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        fresh = types.ModuleType("code")  # which remembers no file
        fresh.__file__ = code.__file__
        exec(Path(code.__file__).read_text(encoding="utf-8"), vars(fresh))
        vars(fresh).update(ROOT=tmp_path, HARNESS=set())
        return str(fresh.fingerprint("alignrec.pipeline.a"))

    return edit


def test_what_a_file_means_counts(edited: Edit) -> None:
    edited("pipeline/a.py", "from alignrec.pipeline import b\n")
    before = edited("pipeline/b.py", "def f(x):\n    return x + 1\n")
    text = '"""Docstring."""\n\n# comment\nY = """text"""\n'
    assert edited("pipeline/b.py", 'def f(x):\n    """Add."""\n    # one\n    return (x + 1)\n') == before
    assert edited("pipeline/b.py", "def f(x):\n    return x + 2\n") != before
    assert edited("pipeline/b.py", text) != edited("pipeline/b.py", text.replace("text", "other"))


def test_what_only_type_checkers_read_does_not_count(edited: Edit) -> None:
    edited(
        "pipeline/a.py", "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from alignrec.pipeline import b\n"
    )
    assert edited("pipeline/b.py", "x = 1\n") == edited("pipeline/b.py", "x = 2\n")


# --- paths of files


def test_every_file_lies_in_a_stages_folder_of_its_dataset() -> None:
    layout = Layout(Path("outputs"), "shop")
    folders = {of(stage) for stage in STAGES for of in (layout.folder, layout.work)}
    named = {name for name, kind in vars(Layout).items() if isinstance(kind, property | StageFile)}
    assert len(named) > 15
    for name in named - {"published", "encoder", "rows"}:
        path = getattr(layout, name)
        assert folders & {path, *path.parents}, name
    assert layout.encoder.folder in folders
    assert len({layout.run_record(stage) for stage in STAGES}) == len(STAGES)
