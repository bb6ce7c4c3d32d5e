"""Feature sets with their networks on a Ray cluster.

Inputs of a shard are read here and sent to a worker, which also gets the files of the network. Its rows come back, and
derived sets are computed here, so nodes need no files of this machine.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.encode import batching
from pipeline.encode.base import FIRST
from pipeline.encode.origin import plainly
from pipeline.encode.throughput import Throughput
from pipeline.engine import cluster
from pipeline.features.earlier import Earlier
from pipeline.features.encoded import Encoded, Encoding, Look
from pipeline.features.node import Items, Maker, Node

Shard = tuple[int, int]  # first and last + 1 item
Job = tuple[int, int, int]  # number of the network, and a shard


class Cluster:
    """The cluster that a run uses for all sets."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._processors = cluster.Processors(warn)

    def rows(self, node: Node, items: Items, shards: Sequence[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        """Yield the shards of a set with their rows, in order.

        Raises:
            UserError: see `cluster.spread`.
        """
        if not shards:
            return
        far = _Far()
        make = node.rows(replace(items, done=int, elsewhere=far))
        jobs = [(number, *shard) for shard in shards for number in range(len(far.looks))]
        read, work = partial(_read, far.looks, items.ids, items.texts), partial(_worker, Parcel.of(far.looks))
        with closing(cluster.spread(read, work, jobs, self._processors, packages(far.looks))) as results:
            for shard in shards:
                far.rows = [next(results)[1] for _ in far.looks]
                yield shard, make(*shard)


class _Far:
    """The networks of a set, and their rows of the current shard."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.rows: list[pa.Table] = []

    def __call__(self, look: Look) -> Maker:
        number = len(self.looks)
        self.looks.append(look)
        return lambda start, stop: self.rows[number]


class Parcel(NamedTuple):
    """Networks with their files."""

    looks: list[Look]
    files: dict[str, np.ndarray]  # path in the folder where it is opened -> uint8 [n]

    @classmethod
    def of(cls, looks: Sequence[Look]) -> "Parcel":
        files: dict[str, np.ndarray] = {}
        for number, network in enumerate(look.network for look in looks):
            context, root = network.context, network.layout.root
            own = context.files.present() if network.entry.pretrained else []
            files |= {f"root/{path.relative_to(root)}": _content(path) for path in own}
            if origin := context.origin:
                home, folder = _home(number, network), origin.folder
                files |= {f"{home}/{path.relative_to(folder)}": _content(path) for path in origin.files()}
            if not network.entry.portable:
                files |= {f"root/{path.relative_to(root)}": content for path, content in _catalogue(network)}
        return cls([Look(replace(look.network), look.reads, look.known and Earlier(None)) for look in looks], files)

    @contextmanager
    def opened(self) -> Iterator[list[Look]]:
        with TemporaryDirectory(prefix="alignrec-") as name:
            for path, content in self.files.items():
                Path(name, path).parent.mkdir(parents=True, exist_ok=True)
                content.tofile(Path(name, path))
            yield [look._replace(network=_moved(n, look.network, Path(name))) for n, look in enumerate(self.looks)]


def packages(looks: Sequence[Look]) -> list[str]:
    entries = [look.network.entry for look in looks]
    return sorted({name for entry in entries for name in (entry.library, *entry.packages)} - {""})


def _catalogue(network: Encoded) -> Iterator[tuple[Path, np.ndarray]]:
    layout = network.layout
    yield layout.items, _content(layout.items)
    if "image" in network.reads:
        paths = io.shards(layout.images, "images")
        parts = [
            io.read_table(path, schemas.IMAGES).slice(first, rows)
            for path, first, rows in batching.holding(paths, 0, min(FIRST, io.rows([layout.items])))
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables(parts), sink)
        yield paths[0], np.frombuffer(sink.getvalue(), np.uint8)


def _content(path: Path) -> np.ndarray:
    """Return a file's bytes, uint8 [n]; none is in memory before it is asked for."""
    return np.asarray(np.memmap(path, np.uint8, "r")) if path.stat().st_size else np.zeros(0, np.uint8)


def _home(number: int, network: Encoded) -> str:
    assert network.context.origin
    return f"{number}/{network.context.origin.folder.name}"


def _moved(number: int, network: Encoded, folder: Path) -> Encoded:
    context, layout = network.context, replace(network.layout, root=folder / "root")
    origin = context.origin and replace(context.origin, folder=folder / _home(number, network))
    return replace(network, layout=layout, context=replace(context, layout=layout, origin=origin))


def _read(looks: Sequence[Look], ids: pa.Table, texts: Any, job: Job) -> pa.Table:
    number, start, stop = job
    return looks[number].reader(ids, texts)(start, stop)


def _worker(parcel: Parcel) -> cluster.Work[Job]:
    def encoding(look: Look) -> Encoding:
        with _plain_errors(look.network):
            encoder = look.network.load()
        return look.encoding(lambda: encoder, Throughput())

    def work(job: Job, content: pa.Table) -> pa.Table:
        with _plain_errors(parcel.looks[job[0]].network):
            return encodings[job[0]](content)

    with parcel.opened() as looks:
        encodings = [encoding(look) for look in looks]
    return work


@contextmanager
def _plain_errors(network: Encoded) -> Iterator[None]:
    with plainly(f"encoders.{network.name}") if network.context.origin else nullcontext():
        yield
