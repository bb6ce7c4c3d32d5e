"""Feature sets with their networks on a Ray cluster.

Inputs of a shard are read here and sent to a worker, which also gets the files of the network. Its rows come back, and
derived sets are computed here, so nodes need no files of this machine.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.encode import batching
from pipeline.encode.base import FIRST
from pipeline.encode.origin import plainly
from pipeline.engine import cluster
from pipeline.features.earlier import Earlier
from pipeline.features.encoded import Encoded, Encoding, Look
from pipeline.features.node import Items, Maker, Node

Shard = tuple[int, int]  # first and last + 1 item
Job = tuple[int, int, int]  # number of the network, and a shard


def encode(
    node: Node, items: Items, shards: Sequence[Shard], warn: Callable[[str], object]
) -> Iterator[tuple[Shard, pa.Table]]:
    """Yield the shards of a set with their rows, in order; UserError as `cluster.spread`, which may `warn`."""
    if not shards:
        return
    looks, made = list[Look](), list[pa.Table]()  # the networks of the set, and their rows of the current shard

    def elsewhere(look: Look) -> Maker:
        number = len(looks)
        looks.append(look)
        return lambda start, stop: made[number]

    make = node.rows(replace(items, done=int, elsewhere=elsewhere))
    jobs = [(number, *shard) for shard in shards for number in range(len(looks))]
    sent = [Look(replace(look.network), look.reads, look.known and Earlier(None)) for look in looks]
    read, work = partial(_read, looks, items.ids, items.texts), partial(_worker, sent, _files(looks))
    with closing(cluster.spread(read, work, jobs, warn, packages(looks))) as results:
        for shard in shards:
            made[:] = [next(results)[1] for _ in looks]
            yield shard, make(*shard)


def packages(looks: Sequence[Look]) -> list[str]:
    entries = [look.network.entry for look in looks]
    return sorted({name for entry in entries for name in (entry.library, *entry.packages)} - {""})


def _files(looks: Sequence[Look]) -> dict[str, np.ndarray]:
    """Return the files of the networks: path in the folder where a worker writes them -> uint8 [n]."""
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
    return files


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


def _worker(looks: Sequence[Look], files: dict[str, np.ndarray]) -> cluster.Work[Job]:
    def encoding(number: int, folder: Path) -> Encoding:
        with _plain_errors(looks[number].network):
            encoder = _moved(number, looks[number].network, folder).load()
        return looks[number].encoding(lambda: encoder)

    def work(job: Job, content: pa.Table) -> pa.Table:
        with _plain_errors(looks[job[0]].network):
            return encodings[job[0]](content)

    with TemporaryDirectory(prefix="alignrec-") as name:
        for path, content in files.items():
            Path(name, path).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(Path(name, path))
        encodings = [encoding(number, Path(name)) for number in range(len(looks))]
    return work


def _plain_errors(network: Encoded) -> AbstractContextManager[None]:
    return plainly(f"encoders.{network.name}") if network.context.origin else nullcontext()
