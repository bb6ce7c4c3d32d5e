"""One thread a process: the tests' matrices are tiny, and on a busy machine waiting threads cost minutes."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch and faiss are first imported, so set before
    os.environ.setdefault(name, "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that a test starts compiles our modules again

import pickle  # noqa: E402  (after the environment is set)
from collections.abc import Callable, Iterator  # noqa: E402
from concurrent.futures import Future  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from functools import cache  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from pipeline.engine.place import Seats  # noqa: E402
from pipeline.engine.processes import Processes  # noqa: E402

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

LONGEST = ("test_pipeline.py", "test_ingest_resume.py", "test_jobs.py", "test_sweep.py", "test_parallel.py")
"""files of minutes; several processes take a file at a time, and end together if these come first"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@contextmanager
def _in_this_process(places: Processes, make: Callable[[], Callable[[Any], Any]]) -> Iterator[Seats]:
    worker = cache(pickle.loads(pickle.dumps(make)))

    def submit(job: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(pickle.loads(pickle.dumps(worker()(pickle.loads(pickle.dumps(job))))))
        except Exception as e:
            done.set_exception(e)
        return done

    yield Seats(submit, places.number)


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Workers of `engine.Processes` live in this process; what goes to them is pickled all the same.

    For tests of what is computed and not of where: a process of its own takes seconds to load torch.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "opened", _in_this_process)
        yield
