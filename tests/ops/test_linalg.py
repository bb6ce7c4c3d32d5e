import sys
from types import ModuleType

import faiss  # noqa: F401  (which brings BLAS)
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

from pipeline.ops import linalg


def numbers() -> dict[str, int]:
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


def test_all_libraries_are_limited_and_get_back_what_they_had() -> None:
    with linalg.limited(3):
        assert {*numbers().values()} == {3}
        with linalg.limited(1, user_api="blas"):
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
        assert {*numbers().values()} == {3}


def test_libraries_are_looked_for_after_an_import_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    class Counted(ThreadpoolController):
        def __init__(self) -> None:
            super().__init__()
            looked.append(self)

    monkeypatch.setattr(linalg, "ThreadpoolController", Counted)
    for name in ("one", "two"):
        monkeypatch.setitem(sys.modules, f"brings_library_{name}", ModuleType(name))
        for _ in range(3):
            linalg.limited(1)
    assert len(looked) == 2
