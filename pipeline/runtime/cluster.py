"""Run jobs on a Ray cluster with Ray Data.

Inputs are read on this machine, and results come back in order. A row is a job with its input or
result as Arrow bytes, so nodes need this package but no shared folder.
"""

import logging
import os
import platform
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import chdir, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.machine import installed_versions, machine_facts, versions

Job = TypeVar("Job")
Read = Callable[[Job], pa.Table]  # reads the input of a job, in a process on this machine
Work = Callable[[Job, pa.Table], pa.Table]  # computes the result of a job from its input
CONCURRENT_READS = 2
ATTEMPTS = 10  # per job if workers are lost
MAX_SECONDS_TO_START = 3600  # wait for the first worker, as nodes may still be starting
LOST = (
    f"a worker of the Ray cluster was lost {ATTEMPTS} times at one job, most likely as memory ran "
    "out; give nodes more, or lower `encode.batch_size`; `ray list workers` says why they ended"
)
MIXED = (
    "workers have several kinds of processor, which may round differently: {}. Rows may differ "
    "from those of one kind in their last digits; take nodes of one kind for equal bytes"
)
# columns of a job in Ray's tables
JOB, TABLE, ERROR, PROCESSOR = "job", "table", "error", "processor"
BATCH = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}


def run_jobs(
    read: Read[Job],
    make: Callable[[], Work[Job]],
    jobs: Sequence[Job],
    warn: Callable[[str], object],
    packages: Sequence[str] = (),
) -> Generator[tuple[Job, pa.Table], None, None]:
    """Yield each job with its result, in order; arguments are pickled.

    Uses the connected cluster, RAY_ADDRESS, or a new local one, in this order. UserError if Ray is
    missing, a node has other code or other versions of `packages`, no worker fits, or a job fails.
    """
    if not jobs:
        return
    ray = _connect()
    needs = _find_needs(ray)
    worker = [ray.put((make, jobs)), needs.threads, facts(packages), packages]
    reader = partial(_read, read, jobs, os.getcwd())
    rows = _schedule(ray, reader, worker, needs.options, len(jobs))
    processors: set[str] = set()
    try:
        blocks = iter(rows.iter_batches(batch_size=None, batch_format="pyarrow"))
        with closing(blocks):
            for row in _split_rows(blocks):
                if error := row[ERROR].as_py():
                    raise UserError(error)

                processor = row[PROCESSOR].as_py()
                if len(processors) == 1 and processor not in processors:
                    warn(MIXED.format("; ".join(sorted({*processors, processor}))))
                processors.add(processor)

                yield jobs[row[JOB].as_py()], _unpack(row[TABLE])
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):  # after Ray's retries
        raise UserError(LOST) from None
    except ray.exceptions.GetTimeoutError:
        raise UserError(f"{needs.lack}; `ray status` says what there is") from None


def _split_rows(blocks: Iterable[pa.Table]) -> Iterator[dict[str, pa.Scalar]]:
    for block in blocks:
        for number in range(len(block)):
            yield {name: block[name][number] for name in (JOB, TABLE, ERROR, PROCESSOR)}


def facts(packages: Sequence[str] = ()) -> dict[str, str]:
    """Facts that all nodes must share: code and versions."""
    source = {"code": code.source_sha256()[:12]}
    return source | versions() | installed_versions(packages)


def check_node(expected: dict[str, str], here: dict[str, str]) -> None:
    names = sorted(expected.keys() | here.keys())
    differences = [
        f"{name} {here.get(name, 'none')}, not {expected.get(name, 'none')}"
        for name in names
        if expected.get(name) != here.get(name)
    ]
    if differences:
        raise UserError(
            f"a node of the Ray cluster ({platform.node()}) has {', '.join(differences)}; "
            "install the same on all"
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
                f"RAY_ADDRESS is {address}; "
                "start this on a node of the cluster, and give its host:port"
            )
        # Ray logs each worker start as an error
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)  # reads RAY_ADDRESS
        except (ConnectionError, RuntimeError, ValueError) as e:
            place = f" at {address}" if address else ""
            raise UserError(f"the Ray cluster{place}: {one_line(e)}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


class _Needs(NamedTuple):
    """What a worker takes of a node."""

    threads: int
    options: dict[str, int]  # resources, as arguments of Ray
    lack: str  # error message for clusters where it fits on no node


def _find_needs(ray: Any) -> _Needs:
    import torch

    # all workers use the same kind of processor, and as many threads as this process, so that all
    # rows round alike
    threads = torch.get_num_threads()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes):
        resource, amount, room = "GPU", 1, "a GPU"
        options = {"num_cpus": 0, "num_gpus": 1}
    else:
        resource, amount, room = "CPU", threads, f"{threads} threads"
        options = {"num_cpus": threads}

    lack = f"no node of the Ray cluster has room for a worker with {room}"
    fits = any(node["Resources"].get(resource, 0) >= amount for node in nodes)
    # nodes of KubeRay and `ray up` have this label: such clusters may scale up
    may_grow = any("ray.io/node-group" in node["Labels"] for node in nodes)
    if not fits and not may_grow:
        raise UserError(
            f"{lack}; `ray status` says what there is, and OMP_NUM_THREADS sets the threads"
        )
    return _Needs(threads, options, lack)


def _schedule(
    ray: Any, read: Callable[..., pa.Table], worker: list[Any], options: dict[str, int], jobs: int
) -> Any:
    """Return Ray's lazy dataset of results, a row per job, in order."""
    data = ray.data
    rows = data.from_items([*range(jobs)], override_num_blocks=jobs)
    rows.context.execution_options.preserve_order = True
    rows.context.enable_progress_bars = False
    rows.context.print_on_execution_start = False
    rows.context.wait_for_min_actors_s = MAX_SECONDS_TO_START

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with warnings.catch_warnings():  # Ray 2.64 will rename `max_task_retries`
        warnings.simplefilter("ignore", DeprecationWarning)
        inputs = rows.map_batches(
            read,
            compute=data.TaskPoolStrategy(size=min(CONCURRENT_READS, jobs)),
            # otherwise readers never start if workers occupy all CPUs (Ray issue 44687)
            num_cpus=0,
            label_selector=here,
            **BATCH,
        )
        return inputs.map_batches(
            _Worker,
            fn_constructor_args=worker,
            compute=data.ActorPoolStrategy(min_size=1, max_size=jobs),
            max_task_retries=ATTEMPTS - 1,
            **options,
            **BATCH,
        )


def _read(read: Read[Job], jobs: Sequence[Job], folder: str, batch: pa.Table) -> pa.Table:
    number = batch["item"][0].as_py()
    try:
        with chdir(folder):  # Ray may run in another folder
            return _pack(number, read(jobs[number]))
    except UserError as e:
        return _pack(number, pa.table({}), error=str(e))


@dataclass
class _Worker:
    """Ray actor that runs jobs on a node with the same code and packages."""

    shared: Any  # object reference to the work's factory and the jobs
    threads: int
    expected: dict[str, str]  # facts that this node must have
    packages: Sequence[str]
    work: Work[Any] | None = None
    jobs: Sequence[Any] = ()

    def __call__(self, batch: pa.Table) -> pa.Table:
        import torch

        # the setting is per thread, and the actor may use another
        torch.set_num_threads(self.threads)
        if batch[ERROR][0].as_py():
            return batch

        number = batch[JOB][0].as_py()
        try:
            work = self._load()
            machine = machine_facts()
            result = work(self.jobs[number], _unpack(batch[TABLE][0]))
        except UserError as e:
            return _pack(number, pa.table({}), error=str(e))
        processor = ", ".join(filter(None, [machine["cpu"], machine["gpu"]]))
        return _pack(number, result, processor=processor)

    def _load(self) -> Work[Any]:
        if self.work is None:
            import ray

            check_node(self.expected, facts(self.packages))
            make, self.jobs = ray.get(self.shared)
            self.work = make()
        return self.work


def _pack(job: int, table: pa.Table, error: str = "", processor: str = "") -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    packed = sink.getvalue()

    # without a copy
    offsets = pa.array([0, packed.size], pa.int64()).buffers()[1]
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, packed])
    return pa.table({JOB: [job], TABLE: column, ERROR: [error], PROCESSOR: [processor]})


def _unpack(cell: pa.Scalar) -> pa.Table:
    return pa.ipc.open_stream(cell.as_buffer()).read_all()
