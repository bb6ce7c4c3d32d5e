"""Run jobs on a Ray cluster with Ray Data: inputs are read on this machine, results come back in order.

A row is a job with its input or result as Arrow bytes, so nodes need this package but no shared folder.
"""

import logging
import os
import platform
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import chdir, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.runtime import code

Job = TypeVar("Job")
Read = Callable[[Job], pa.Table]  # reads the input of a job, in a process on this machine
Work = Callable[[Job, pa.Table], pa.Table]  # computes the result of a job from its input
READERS = 2  # concurrent reads
TRIES = 10  # attempts per job if workers are lost
LOST = (
    f"a worker of the Ray cluster was lost {TRIES} times at one job, most likely as memory ran out; give nodes more, "
    "or lower `encode.batch_size`; `ray list workers` says why they ended"
)
MIXED = (
    "workers have several kinds of processor, which may round differently: {}. Rows may differ from those of one kind "
    "in their last digits; take nodes of one kind for equal bytes"
)
PATIENCE = 3600  # seconds to wait for the first worker, as nodes may still be starting


def run_jobs(
    read: Read[Job], make: Callable[[], Work[Job]], jobs: Sequence[Job], warn: Callable[[str], object],
    packages: Sequence[str] = (),
) -> Generator[tuple[Job, pa.Table], None, None]:  # fmt: skip
    """Yield each job with its result, in order; arguments are pickled.

    Uses the connected cluster, RAY_ADDRESS, or a new local one, in this order. UserError if Ray is missing, a node has
    other code or other versions of `packages`, no worker fits, or a job fails.
    """
    if not jobs:
        return
    ray = _connect()
    threads, options, lack = _needs(ray)
    worker = [ray.put((make, jobs)), threads, facts(packages), packages]
    rows = _rows(ray, partial(_read, read, jobs, os.getcwd()), worker, options, len(jobs))
    kinds = set[str]()
    try:
        with closing(iter(rows.iter_batches(batch_size=None, batch_format="pyarrow"))) as blocks:
            for row in (block.slice(at, 1) for block in blocks for at in range(len(block))):
                job, table, error, kind = (
                    row[name][0] for name in ("job", "table", "error", "processor")
                )
                if error.as_py():
                    raise UserError(error.as_py())
                if len(kinds) == 1 and kind.as_py() not in kinds:
                    warn(MIXED.format("; ".join(sorted({*kinds, kind.as_py()}))))
                kinds.add(kind.as_py())
                yield jobs[job.as_py()], _unpack(table)
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):  # after Ray's retries
        raise UserError(LOST) from None
    except ray.exceptions.GetTimeoutError:
        raise UserError(f"{lack}; `ray status` says what there is") from None


def facts(packages: Sequence[str] = ()) -> dict[str, str]:
    return {
        "code": code.source_sha256()[:12],
        **code.versions(),
        **code.installed_versions(packages),
    }


def check_node(wanted: dict[str, str], here: dict[str, str]) -> None:
    names = sorted(name for name in {**wanted, **here} if wanted.get(name) != here.get(name))
    if names:
        differences = ", ".join(
            f"{name} {here.get(name, 'none')}, not {wanted.get(name, 'none')}" for name in names
        )
        raise UserError(
            f"a node of the Ray cluster ({platform.node()}) has {differences}; install the same on all"
        )


def _connect() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as e:
        raise UserError(f"engine 'ray' needs another package ({e}): {installing('ray')}") from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "")
        if address.startswith("ray://"):
            raise UserError(
                f"RAY_ADDRESS is {address}; start this on a node of the cluster, and give its host:port"
            )
        os.environ.setdefault(
            "RAY_BACKEND_LOG_LEVEL", "fatal"
        )  # Ray logs each worker start as an error
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)  # reads RAY_ADDRESS
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise UserError(
                f"the Ray cluster{f' at {address}' * bool(address)}: {one_line(e)}"
            ) from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _needs(ray: Any) -> tuple[int, dict[str, int], str]:
    """Return threads and resources of a worker, and an error message for clusters where it fits on no node."""
    import torch

    threads, nodes = torch.get_num_threads(), [node for node in ray.nodes() if node["Alive"]]
    # all workers use the same kind of processor, and as many threads as this process, so that all rows round alike
    gpu = any(node["Resources"].get("GPU", 0) >= 1 for node in nodes)
    resource, amount = ("GPU", 1) if gpu else ("CPU", threads)
    lack = f"no node of the Ray cluster has room for a worker with {'a GPU' if gpu else f'{threads} threads'}"
    fits = any(node["Resources"].get(resource, 0) >= amount for node in nodes)
    # nodes of KubeRay and `ray up` have this label: such clusters may scale up
    if not fits and not any("ray.io/node-group" in node["Labels"] for node in nodes):
        raise UserError(
            f"{lack}; `ray status` says what there is, and OMP_NUM_THREADS sets the threads"
        )
    return threads, {"num_cpus": 0, "num_gpus": 1} if gpu else {"num_cpus": threads}, lack


def _rows(ray: Any, read: Any, worker: list[Any], options: dict[str, int], jobs: int) -> Any:
    data, batch = ray.data, {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    rows = data.from_items([*range(jobs)], override_num_blocks=jobs)
    rows.context.execution_options.preserve_order = True
    rows.context.enable_progress_bars = rows.context.print_on_execution_start = False
    rows.context.wait_for_min_actors_s = PATIENCE
    with warnings.catch_warnings():  # Ray 2.64 will rename `max_task_retries`
        warnings.simplefilter("ignore", DeprecationWarning)
        return rows.map_batches(
            read,
            compute=data.TaskPoolStrategy(size=min(READERS, jobs)),
            num_cpus=0,  # otherwise readers never start if workers occupy all CPUs (Ray issue 44687)
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            **batch,
        ).map_batches(
            _Worker,
            fn_constructor_args=worker,
            compute=data.ActorPoolStrategy(min_size=1, max_size=jobs),
            max_task_retries=TRIES - 1,
            **options,
            **batch,
        )


def _read(read: Read[Job], jobs: Sequence[Job], folder: str, batch: pa.Table) -> pa.Table:
    number = batch["item"][0].as_py()
    try:
        with chdir(folder):  # Ray may run in another folder
            return _row(number, read(jobs[number]))
    except UserError as e:
        return _row(number, pa.table({}), error=str(e))


@dataclass
class _Worker:
    """Ray actor that runs jobs on a node with the same code and packages."""

    given: Any  # object reference to the work's factory and the jobs
    threads: int
    wanted: dict[str, str]  # facts that this node must have
    packages: Sequence[str]
    work: Work[Any] | None = None
    jobs: Sequence[Any] = ()

    def __call__(self, batch: pa.Table) -> pa.Table:
        import ray
        import torch

        torch.set_num_threads(
            self.threads
        )  # the setting is per thread, and the actor may use another
        number, error = batch["job"][0].as_py(), batch["error"][0].as_py()
        if error:
            return batch
        try:
            if self.work is None:
                check_node(self.wanted, facts(self.packages))
                make, self.jobs = ray.get(self.given)
                self.work = make()
            at, result = (
                code.machine_facts(),
                self.work(self.jobs[number], _unpack(batch["table"][0])),
            )
            return _row(number, result, processor=", ".join(filter(None, [at["cpu"], at["gpu"]])))
        except UserError as e:
            return _row(number, pa.table({}), error=str(e))


def _row(job: int, table: pa.Table, error: str = "", processor: str = "") -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    packed = sink.getvalue()
    offsets = pa.array([0, packed.size], pa.int64()).buffers()[1]
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, packed])  # without a copy
    return pa.table({"job": [job], "table": column, "error": [error], "processor": [processor]})


def _unpack(cell: pa.Scalar) -> pa.Table:
    return pa.ipc.open_stream(cell.as_buffer()).read_all()
