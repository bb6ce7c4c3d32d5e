"""One thread a process: the tests' matrices are tiny, and on a busy machine waiting threads cost minutes."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch and faiss are first imported, so set before
    os.environ.setdefault(name, "1")

from hypothesis import HealthCheck, settings  # noqa: E402  (after the environment is set)

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
