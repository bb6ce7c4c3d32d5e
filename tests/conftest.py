"""One thread a process: the tests' matrices are tiny, and on a busy machine waiting threads cost minutes."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch and faiss are first imported, so set before
    os.environ.setdefault(name, "1")
