"""A simulated cluster in this process: workers see only what was pickled, not the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from alignrec.pipeline.harness import cluster


@contextmanager
def hidden(*folders: Path) -> Iterator[None]:
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}.hidden"))
    try:
        yield
    finally:
        for folder in folders:
            folder.with_name(f"{folder.name}.hidden").rename(folder)


def spread_without(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> list[Any]:
    """Hide folders from the workers of `cluster.spread`; return the list to which its jobs are added."""
    pickle, jobs_done = pytest.importorskip("cloudpickle"), list[Any]()

    def spread(
        read: Any, make: Any, jobs: Sequence[Any], processors: Any, packages: Sequence[str] = ()
    ) -> Iterator[tuple[Any, pa.Table]]:
        read, make = pickle.loads(pickle.dumps((read, make)))
        work = None
        for job in jobs:
            table = read(job)
            with hidden(*folders):
                work = work or make()
                result = work(job, table)
            jobs_done.append(job)
            yield job, result

    monkeypatch.setattr(cluster, "spread", spread)
    return jobs_done
