"""`import alignrec`: light, typed, and what it offers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import alignrec

ROOT = Path(alignrec.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded(code: str, *modules: str) -> str:
    """Return which modules are loaded after a piece of code."""
    shown = f"{code}; import sys; print([m for m in {modules!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "numpy", "pyarrow", "faiss", "duckdb", "transformers")
    assert loaded("import alignrec", *heavy) == "[]"


def test_reading_a_release_needs_no_torch(made: Path) -> None:
    code = f"import alignrec; r = alignrec.load({str(made)!r}); r.vector('i0'); r.graph['beit3']; r.embeddings"
    assert loaded(code, "torch", "transformers", "faiss", "duckdb") == "[]"


def test_all_that_is_named_is_there() -> None:
    assert all(getattr(alignrec, name) for name in alignrec.__all__)
    assert dir(alignrec) == sorted([*alignrec.__all__, "__version__"])
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; it has .*load"):
        alignrec.lod  # noqa: B018  (misspelt)


def test_what_is_printed_says_what_it_is(made: Path) -> None:
    release = alignrec.load(made)
    x = release.features["beit3"]
    fitted = alignrec.fit("bpr", {"user": ["a", "a", "b"], "item": [0, 1, 1], "split": [0, 1, 0]}, epochs=1)
    probed = alignrec.probe(x, {"user": ["a", "b"], "item": [x.ids[0]] * 2, "split": [0, 0]})
    shown = {
        "Release": release, "features": release.features, "graph": release.graph, "Recommender": fitted,
        "Encoder": alignrec.encoder("minilm"), "ProbeResult": probed, "Vectors": x,
    }  # fmt: skip
    assert [name for name, what in shown.items() if " object at 0x" in repr(what) or name not in repr(what)] == []
    rows, width = x.shape
    assert f"beit3 [{rows}, {width}]" in repr(release.features)
    assert f"beit3 [{rows}, {rows}], {release.graph['beit3'].nnz} edges" in repr(release.graph)
    assert repr(shown["Encoder"]) == "<Encoder minilm: text -> 384 numbers>"
    assert repr(probed).count("\n") == 0


def test_the_version_is_the_projects() -> None:
    assert alignrec.__version__ == PROJECT["project"]["version"]


def test_it_is_packaged_with_its_types() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert "alignrec*" in setuptools["packages"]["find"]["include"]
    assert setuptools["package-data"]["alignrec"] == ["py.typed", "sample.zip"]
    assert (Path(alignrec.__file__).parent / "py.typed").is_file()
    assert "alignrec" in PROJECT["tool"]["mypy"]["packages"]
