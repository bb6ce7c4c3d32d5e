"""One thread a process: the tests' matrices are tiny, and on a busy machine waiting threads cost minutes."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch and faiss are first imported, so set before
    os.environ.setdefault(name, "1")

import pytest  # noqa: E402  (after the environment is set)
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

LONGEST = ("test_pipeline.py", "test_ingest_resume.py", "test_jobs.py", "test_sweep.py", "test_parallel.py")
"""files of minutes; several processes take a file at a time, and end together if these come first"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
