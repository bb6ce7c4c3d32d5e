"""`import alignrec` is light and typed, and has the documented names."""

import subprocess
import sys

import pytest

import alignrec


def loaded(code: str, *modules: str) -> str:
    """Return which modules are loaded after a piece of code."""
    shown = f"{code}; import sys; print([m for m in {modules!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "numpy", "pyarrow", "faiss", "duckdb", "transformers")
    assert loaded("import alignrec", *heavy) == "[]"


def test_all_that_is_named_is_there() -> None:
    assert all(getattr(alignrec, name) for name in alignrec.__all__)
    assert dir(alignrec) == sorted([*alignrec.__all__, "__version__"])
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; it has .*load"):
        alignrec.lod  # noqa: B018  (misspelt)
