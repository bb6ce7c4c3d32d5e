"""Threads of BLAS and OpenMP: the order in which several add up, and so the last bits, depends on their number."""

import sys
from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def limited(number: int, user_api: str | None = None) -> AbstractContextManager[object]:
    """Do as `threadpool_limits`, which looks through all loaded libraries each time, in 3 ms; here after an import."""
    return _pools(len(sys.modules)).limit(limits=number, user_api=user_api)


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    return ThreadpoolController()
