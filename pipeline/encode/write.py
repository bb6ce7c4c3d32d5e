"""The shard loop: items -> the files of a feature set, each written once; a killed run resumes.

`alignrec embed` and the stages `encode` and `beit3` write by it.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode import distributed, quality
from alignrec.pipeline.encode.base import Catalogue, Encoder
from alignrec.pipeline.encode.batching import HALVED, Items, encode_rows
from alignrec.pipeline.encode.folder import ENCODER, LARGEST, SET, Facts
from alignrec.pipeline.encode.network import Network, describe, find_network, settings_facts
from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.encode.registry import ENCODERS
from alignrec.pipeline.encode.rows import Rows
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.versions import versions
from alignrec.pipeline.io import fingerprint

Done = Callable[[int], object]


def write_set(run: Run, name: str, folder: Path, items: Items, done: Done, cache: Path | None = None) -> Facts:
    """Write the feature set of an encoder that is not trained here, with what encodes a new item."""
    own, network = run.params[Encode], find_network(run.params.encoders, name, folder)
    spec = ENCODERS[network.kind]
    images = items.images if "image" in network.reads else []
    files = [items.texts.path, *images, *ENCODERS.source_files(network.kind)]
    files += network.files() if network.origin else []
    modules = ["alignrec.pipeline.encode.write", ENCODERS.module(network.kind)]
    with run.alone():
        run.resume(folder, files, settings_facts(network, own), name, modules=modules)
        if spec.fit and not (folder / SET).is_file():
            spec.fit(Catalogue(run.dataset, items.texts.path, own.seed), network.settings, folder / ENCODER)
        encoder = None
        if not (folder / SET).is_file():
            encoder = network.load()
            io.write_json(folder / SET, describe(network, own, items, encoder).model_dump())
    facts = Facts.read(folder / SET, LARGEST)
    made = (lambda: encoder) if encoder else network.load
    known = None  # what is fitted to the items is another encoder for others
    if cache and not spec.fit:
        known = cache / run.key(network.files(), settings_facts(network, own), modules)
    write_features(run, folder, facts, items, made, network, done, known)
    return facts


def write_features(
    run: Run,
    folder: Path,
    facts: Facts,
    items: Items,
    load: Callable[[], Encoder],
    network: Network | None,
    done: Done,
    cache: Path | None = None,
) -> None:
    """Write the shards of a feature set that are missing, and say what its vectors lack.

    Args:
        load: returns the encoder; called if a shard is missing.
        network: what the nodes of a cluster load; None encodes here.
        done: gets the number of items that were encoded.
        cache: folder of this encoder's rows of earlier catalogues, to be used again; None: none are.
    """
    own, name = run.params[Encode], facts.encoder
    record: dict[str, Any] = {"stage": run.stage, "dataset": run.dataset, "features": name}
    record["params"] = facts.settings | facts.model  # of a model the name, in place of its folder's path
    record |= {"versions": versions(), fingerprint.KEY: facts.fingerprint}
    size, n = own.shard_rows, len(items.ids)
    shards = [(start, min(start + size, n)) for start in range(0, n, size) if run.takes(start // size)]
    todo = [shard for shard in shards if not io.shard(folder, "features", shard[0] // size).exists()]
    done(sum(stop - start for start, stop in {*shards} - {*todo}))
    halved = False
    for (start, _), rows in _encode(run, facts, items, load, network, todo, done, cache):
        if not halved and (halved := bool(pc.any(rows["halved"]).as_py())):
            smaller = f"set `encode.batch_size` to {max(1, own.batch_size // 2)}"
            run.warn(f"{name}: {HALVED}; {smaller}", recorded=False)
        width = rows["vector"].type.list_size
        about = {"encoder": {"dim": width} | facts.model} if facts.model else {}
        schema = schemas.features(width)
        path = io.shard(folder, "features", start // size)
        io.write_table(rows.select(schema.names), path, schema, record | about | quality.text_record(rows))
    if not run.part:
        quality.finish_set(run, facts, io.shards(folder, "features"))


def _encode(
    run: Run, facts: Facts, items: Items, load: Callable[[], Encoder], network: Network | None,
    todo: list[tuple[int, int]], done: Done, cache: Path | None,
) -> Iterator[tuple[tuple[int, int], pa.Table]]:  # fmt: skip
    """Yield shards with their rows, schema features(F) and the columns of `encode_rows`."""
    own, read = run.params[Encode], partial(items.read, reads=facts.reads)
    if not todo:
        return
    if own.engine == "ray" and network is not None:
        for shard, rows in distributed.encode(network, read, own, todo, partial(run.warn, recorded=False)):
            yield shard, rows
            done(shard[1] - shard[0])
        return
    encoder, known = load(), Rows(cache) if cache else None
    encode = partial(encode_rows, encoder, own=own, done=done)
    for shard in todo:
        content = read(*shard)
        with network.plainly() if network else nullcontext():
            rows, again = known.complete(content, encode) if known else (encode(content), 0)
        done(again)
        yield shard, rows
