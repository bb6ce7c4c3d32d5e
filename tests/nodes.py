"""A Ray cluster whose nodes are processes of this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 10}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Start a cluster of one node, which has room for one worker, and connect to it."""
    import ray
    from ray.cluster_utils import Cluster

    tests = Path(__file__).parent
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(map(str, (tests.parent, tests))))  # workers import tests
        cluster = Cluster(
            initialize_head=True, head_node_args={**one_worker(), "include_dashboard": False, "_system_config": QUICK}
        )
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def one_worker() -> dict[str, int]:
    """Return the resources of a node all of whose CPUs are taken by one worker."""
    return {"num_cpus": torch.get_num_threads(), "num_gpus": 0, "object_store_memory": 200 * 2**20}
