"""One thread a process: the tests' matrices are tiny, and on a busy machine waiting threads cost minutes."""

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch and faiss are first imported, so set before
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else each stage looks for 50 ms whether the machine is idle
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that a test starts compiles our modules again

import pytest  # noqa: E402  (after the environment is set)
from hypothesis import HealthCheck, settings  # noqa: E402
from processes import CONTEXT  # noqa: E402, F401  (which also spares the disk)

from pipeline.engine.local import Seats  # noqa: E402
from pipeline.engine.processes import Processes  # noqa: E402

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

LONGEST = (
    "test_pipeline.py",
    "test_contract.py",
    "test_mini.py",
    "test_parallel.py",
    "test_newcomer.py",
    "test_fuzz.py",
)
"""files of minutes; several processes take a file at a time, and end together if these come first"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@contextmanager
def here(places: Processes, make: Callable[[], Callable[[Any], Any]]) -> Iterator[Seats]:
    """Open a place for as many jobs, each done in this process as soon as it is submitted."""
    worker = cache(pickle.loads(pickle.dumps(make)))

    def submit(job: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(pickle.loads(pickle.dumps(worker()(pickle.loads(pickle.dumps(job))))))
        return done

    yield Seats(submit, places.number)


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Let workers of `engine.Processes` live here: to load torch in a process of their own takes them seconds.

    What goes to them and comes from them is pickled all the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "opened", here)
        yield


@pytest.fixture(scope="module")
def shims() -> Iterator[None]:
    """Let `toyproject` run `alignrec` and `dvc` by forks: see `shims.py`."""
    import shims
    import toyproject

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toyproject, "COMMANDS", shims.folder())
        yield
