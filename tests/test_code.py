"""The import closure that decides what an edit re-runs."""

from pipeline import code


def names(module: str) -> set[str]:
    return {str(p.relative_to(code.ROOT)) for p in code.closure(module)}


def test_closure_follows_imports_but_not_the_harness() -> None:
    assert names("pipeline.io") == {"pipeline/io.py", "schemas/__init__.py"}
    assert names("pipeline.report.terminal") == {
        f"pipeline/{name}.py"
        for name in ("evaluation/cutoff", "evaluation/evidence", "report/markdown", "report/terminal")
    }
    assert "pipeline/config/__init__.py" not in names("stages.interactions")


def test_a_package_that_is_used_whole_is_listed_as_its_folder() -> None:
    listed = code.dependencies("stages.benchmark")
    assert "pipeline/models" in listed
    assert "pipeline/models/base.py" not in listed
    assert "pipeline/train/loop.py" in listed


def test_the_released_recommender_does_not_depend_on_its_baselines() -> None:
    listed = code.dependencies("stages.train")
    assert "pipeline/models/alignrec.py" in listed
    assert not {"pipeline/models", "pipeline/models/bm3.py"} & set(listed)


def test_another_encoder_does_not_rerun_pretraining() -> None:
    used = set(names("stages.pretrain"))
    assert "pipeline/beit3/network.py" in used
    assert not {path for path in used if path.startswith("pipeline/encode/")}
    assert "pipeline/beit3/inference.py" not in used


def test_functions_own_imports_count() -> None:
    assert "pipeline/report/terminal.py" in names("stages.cli")


def test_the_fingerprint_changes_with_the_content(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    package = tmp_path / "pipeline"
    package.mkdir()
    (package / "a.py").write_text("from pipeline import b\n")
    (package / "b.py").write_text("x = 1\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    before = code.fingerprint("pipeline.a")
    code.fingerprint.cache_clear()
    code._imports.cache_clear()
    (package / "b.py").write_text("x = 2\n")
    assert code.fingerprint("pipeline.a") != before
