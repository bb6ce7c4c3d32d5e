"""Two nodes that do not see the folder of the run, one killed at work: the files of one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import networks
import pytest
import torch
from coloured import ITEMS, catalogue

from pipeline import io
from pipeline.layout import Layout
from pipeline.run import running
from stages.encode import main
from stages.params import Params

TESTS = Path(__file__).parents[1]
NODE = """
mount -t tmpfs none "$1" && cd / && exec "$2" -m ray.scripts.scripts start --address="$3" --block --num-cpus="$4" \\
    --num-gpus=0 --object-store-memory=200000000
"""


def features(layout: Layout, engine: str, model: Path) -> list[bytes]:
    """Run the stage; return the files of the sets."""
    given = {
        "datasets": ["shop"],
        "sources": {"shop": {"kind": "mmrec", "interactions": "x.inter"}},
        "encode": {"encoders": ["net", "tfidf"], "shard_rows": 4, "batch_size": 2, "engine": engine},
        "encoders": {"net": {"kind": "huggingface", "model": str(model)}},
    }
    with running("encode", "shop", Params.model_validate(given), layout.root) as run:
        main(run)
    return [
        path.read_bytes() for name in layout.feature_sets() for path in io.shards(layout.features(name), "features")
    ]


def node(hidden: Path, address: str) -> subprocess.Popen[bytes]:
    """Start a node in a mount namespace with an empty folder in place of `hidden`; return when the cluster has it."""
    import ray

    def alive() -> int:
        return sum(node["Alive"] for node in ray.nodes())

    before, own = alive(), [str(hidden), sys.executable, address, str(torch.get_num_threads())]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(["unshare", "-m", "sh", "-c", NODE, "sh", *own], start_new_session=True, **quiet)
    while alive() == before:
        assert started.poll() is None
        time.sleep(0.2)
    return started


def descendants(pid: int) -> list[int]:
    """Return the processes below one, itself first."""
    found = [pid]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
    return found


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A node of no CPU, which this process is connected to; its address."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    if os.getuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, to hide folders in mount namespaces")
    import ray
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 10}
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    none = {"num_cpus": 0, "num_gpus": 0, "object_store_memory": 200 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**none, "_system_config": quick})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_nodes_that_see_no_folder_make_the_files_of_one_machine_though_one_is_killed(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "head"
    model = networks.siglip(base / "network")
    expected = features(catalogue(base / "here", ITEMS), "local", model)
    started, killed = list[subprocess.Popen[bytes]](), list[int]()

    def kill() -> None:
        """Kill the first node that has a worker at work, with all its processes."""
        while not killed:
            time.sleep(0.02)
            for one in started:
                below = descendants(one.pid)
                if any("MapWorker" in title(pid) and ".submit" in title(pid) for pid in below):
                    for pid in below:
                        os.kill(pid, signal.SIGKILL)
                    killed.append(one.pid)
                    break

    try:
        for _ in range(2):
            started.append(node(base, head))
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        monkeypatch.chdir(base)  # in which no process of Ray was started
        assert features(catalogue(Path("there"), ITEMS), "ray", model) == expected
        assert len(killed) == 1
    finally:
        for one in started:
            for pid in descendants(one.pid):
                os.kill(pid, signal.SIGKILL)
            one.wait()
