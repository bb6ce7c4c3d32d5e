"""Encoding on a Ray cluster.

Inputs of a shard are read here and sent to a worker, which also gets the files of the network; so nodes need no files
of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from alignrec.pipeline.encode.batching import encode_rows
from alignrec.pipeline.encode.network import Network
from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.engine import cluster

Shard = tuple[int, int]  # first and last + 1 item


def encode(
    network: Network,
    read: Callable[[int, int], pa.Table],
    own: Encode,
    shards: Sequence[Shard],
    warn: Callable[[str], object],
) -> Iterator[tuple[Shard, pa.Table]]:
    """Yield the shards of a set with their rows, in order; UserError as `cluster.spread`, which may `warn`."""
    files = {str(path.relative_to(network.folder)): _content(path) for path in network.files()}
    work = partial(_worker, network.moved(network.folder), own, files)
    yield from cluster.spread(partial(_read, read), work, shards, warn, network.packages)


def _content(path: Path) -> np.ndarray:
    """Return a file's bytes, uint8 [n]; none is in memory before it is asked for."""
    return np.asarray(np.memmap(path, np.uint8, "r")) if path.stat().st_size else np.zeros(0, np.uint8)


def _read(read: Callable[[int, int], pa.Table], shard: Shard) -> pa.Table:
    return read(*shard)


def _worker(network: Network, own: Encode, files: dict[str, np.ndarray]) -> cluster.Work[Shard]:
    with TemporaryDirectory(prefix="alignrec-") as folder:
        home = Path(folder, network.folder.name)
        for path, content in files.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(home / path)
        encoder = network.moved(home).load()

    def work(shard: Shard, content: pa.Table) -> pa.Table:
        with network.plainly():
            return encode_rows(encoder, content, own)

    return work
