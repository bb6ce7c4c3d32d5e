"""Write a feature set shard by shard; an interrupted run resumes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.chunks import Reading
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODERS,
    Catalogue,
    Encoder,
    Network,
    settings_facts,
)
from alignrec.pipeline.features.batching import HALVED, Items, encode_rows, texts_and_images
from alignrec.pipeline.features.folder import MAX_SET_BYTES, READ, SET, Facts, Span, judge_quality
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.runtime import cluster
from alignrec.pipeline.runtime.code import versions
from alignrec.pipeline.runtime.run import Run

SIZE = 16  # bytes of the truncated sha256; n contents collide with probability n^2 / 2^129
COLUMNS = ("key", "has_image", "has_text", "vector", "read", "there", "unknown", "halved")


class RowCache:
    """Cache of one encoder's rows by content, across runs and catalogues; io/journal.py is what resumes a run.

    Only hashes and positions are in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # a file is named by its SHA-256, so damaged files are skipped
        self._files = [
            path for path in sorted(folder.glob("*.parquet")) if io.sha256(path) == path.stem
        ]
        keys = [
            pq.read_table(path, columns=["key"])["key"].combine_chunks() for path in self._files
        ]
        self._first = np.cumsum([0, *map(len, keys)])
        self._keys = pa.concat_arrays(keys) if keys else pa.array([], pa.binary(SIZE))

    def complete(
        self, content: pa.Table, encode: Callable[[pa.Table], pa.Table]
    ) -> tuple[pa.Table, int]:
        """Return the rows of all items, encoding and caching unknown ones, and the number of known ones."""
        hashes = []
        for text, image in zip(*texts_and_images(content), strict=True):
            words = text.encode(errors="surrogatepass")
            total = hashlib.sha256(f"{len(words)} {image is None} ".encode() + words)
            total.update(image or b"")
            hashes.append(total.digest()[:SIZE])
        keys = pa.array(hashes, pa.binary(SIZE))
        places = pc.index_in(keys, self._keys).fill_null(-1).to_numpy()
        known, new = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        tables, order = list[pa.Table](), list[np.ndarray]()
        numbers = np.searchsorted(self._first, places, side="right") - 1  # file of each known item
        for number in np.unique(numbers[known]):
            order.append(np.flatnonzero(numbers == number))
            rows = (
                pq.read_table(self._files[number])
                .take(places[order[-1]] - self._first[number])
                .drop_columns("key")
            )
            items = content.take(order[-1])
            tables.append(
                rows.add_column(0, "item_id", items["item_id"]).add_column(1, "asin", items["asin"])
            )
        if len(new):
            order.append(new)
            tables.append(encode(content.take(new)))
            kept = tables[-1].append_column("key", keys.take(pa.array(new)))
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(
                prefix=".", dir=self._folder
            ) as folder:  # several processes may write here
                path = Path(folder, "rows")
                pq.write_table(
                    kept.select([name for name in COLUMNS if name in kept.column_names]), path
                )
                path.replace(self._folder / f"{io.sha256(path)}.parquet")
        rows = pa.concat_tables(tables, promote_options="default")
        return rows.take(np.argsort(np.concatenate(order))), len(known)


Done = Callable[[int], object]  # called with the number of encoded items


def write_set(
    run: Run, network: Network, folder: Path, items: Items, done: Done, known: Path | None = None
) -> None:
    """Write the feature set of an encoder that is not trained here, with the files that encode new items."""
    own, spec, load = run.params[Encode], ENCODERS[network.kind], cache(network.load)
    settings = settings_facts(network, own)
    inputs = [items.texts.path, *ENCODERS.source_files(network.kind)]
    inputs += items.images if "image" in network.reads else []
    inputs += network.files() if network.origin else []
    modules = ["alignrec.pipeline.features.encode", ENCODERS.module(network.kind)]
    # rows of earlier catalogues, which an encoder that is fitted to the items cannot reuse
    rows = known / run.key(network.files(), settings, modules) if known and not spec.fit else None
    with run.lock_of_part():
        run.resume(folder, inputs, settings, network.name, modules=modules)
        if not (folder / SET).is_file():
            if spec.fit:
                spec.fit(
                    Catalogue(run.dataset, items.texts.path, own.seed),
                    network.settings,
                    network.folder,
                )
            io.write_json(folder / SET, describe_set(network, own, items, load()).model_dump())
    write_features(
        run, folder, Facts.read(folder / SET, MAX_SET_BYTES), items, load, network, done, rows
    )


def image_facts(items: Items) -> dict[str, Any]:
    recorded = io.record(items.images[0]).get("params", {}) if items.images else {}
    return {
        f"image_{key}": recorded.get(key, getattr(Images(), key)) for key in ("size", "quality")
    }


def describe_set(network: Network, own: Encode, items: Items, encoder: Encoder) -> Facts:
    spec, settings, model = (
        ENCODERS[network.kind],
        network.settings.model_dump(mode="json"),
        network.model_facts(),
    )
    stored, halves = image_facts(items), getattr(encoder, "halves", {})
    space = {key: value for key, value in model.items() if key != "library"}
    space |= {"weights": io.digest(network.files())} if spec.fit else {}
    facts = Facts(
        encoder=network.name,
        kind=network.kind,
        reads=list(network.reads),  # type: ignore[arg-type]
        settings=settings,
        weights=network.name if spec.fit else None,
        packages={package: version(package) for package in spec.packages},
        batch_size=own.batch_size,
        **stored,
        spans=[Span(reads=[modality], width=width) for modality, width in halves.items()],
        model={"kind": network.kind} | model if model else {},
    )
    if network.origin and network.origin.fingerprint:  # a released encoder keeps its fingerprint
        shown = stored if "image" in network.reads else {}
        return facts.model_copy(update={"fingerprint": {**network.origin.fingerprint, **shown}})
    return facts.with_space(space)


def write_features(
    run: Run,
    folder: Path,
    facts: Facts,
    items: Items,
    load: Callable[[], Encoder],  # called only if a shard is missing
    network: Network | None,  # loaded by the nodes of a cluster; None: encode here
    done: Done,
    known: Path | None = None,  # cached rows of this encoder
) -> None:
    """Write the missing shards of a feature set, then check its quality."""
    own, name, n = run.params[Encode], facts.encoder, len(items.ids)
    record: dict[str, Any] = {"stage": run.stage, "dataset": run.dataset, "features": name}
    record["params"] = facts.settings | facts.model  # the name of a model replaces its path
    record |= {"versions": versions(), io.FINGERPRINT: facts.fingerprint}
    paths = {
        range(start, min(start + own.shard_rows, n)): io.shard(folder, "features", number)
        for number, start in enumerate(range(0, n, own.shard_rows))
        if run.owns_shard(number)
    }
    todo = [shard for shard, path in paths.items() if not path.exists()]
    done(sum(map(len, paths)) - sum(map(len, todo)))
    halved = False
    for shard, rows in _encode_shards(run, facts, items, load, network, todo, done, known):
        if not halved and (halved := bool(pc.any(rows["halved"]).as_py())):
            smaller = f"set `encode.batch_size` to {max(1, own.batch_size // 2)}"
            run.warn(f"{name}: {HALVED}; {smaller}", recorded=False)
        width = rows["vector"].type.list_size
        about = {"encoder": {"dim": width} | facts.model} if facts.model else {}
        if "read" in rows.column_names and len(counted := rows.filter(rows["read"].is_valid())):
            about[READ] = Reading(*(counted[count].to_numpy() for count in Reading._fields)).facts()
        schema = schemas.features(width)
        io.write_table(rows.select(schema.names), paths[shard], schema, record | about)
    if not run.part:
        note, warnings = judge_quality(facts, io.shards(folder, "features"))
        run.note(**note)
        for warning in warnings:
            run.warn(warning)


def _encode_shards(
    run: Run, facts: Facts, items: Items, load: Callable[[], Encoder], network: Network | None,
    todo: Sequence[range], done: Done, known: Path | None,
) -> Iterator[tuple[range, pa.Table]]:  # fmt: skip
    own, read = run.params[Encode], partial(items.read, reads=facts.reads)
    if todo and (own.engine == "local" or network is None):
        encode, cached = (
            partial(encode_rows, load(), own=own, done=done),
            RowCache(known) if known else None,
        )
        for shard in todo:
            content = read(shard)
            with network.name_errors() if network else nullcontext():
                rows, reused = cached.complete(content, encode) if cached else (encode(content), 0)
            done(reused)
            yield shard, rows
    elif todo and network is not None:
        # send inputs and the network's files along: nodes may not share a file system
        files = {
            str(path.relative_to(network.folder)): np.asarray(np.memmap(path, np.uint8, "r"))
            if path.stat().st_size
            else np.zeros(0, np.uint8)
            for path in network.files()
        }
        work = partial(_encode_on_node, network.move_to(network.folder), own, files)
        for shard, rows in cluster.run_jobs(
            read, work, todo, partial(run.warn, recorded=False), network.packages
        ):
            yield shard, rows
            done(len(shard))


def _encode_on_node(
    network: Network, own: Encode, files: dict[str, np.ndarray]
) -> cluster.Work[range]:
    with TemporaryDirectory(prefix="alignrec-") as folder:
        home = Path(folder, network.folder.name)
        for path, content in files.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(home / path)
        encoder = network.move_to(home).load()

    def work(shard: range, content: pa.Table) -> pa.Table:
        with network.name_errors():
            return encode_rows(encoder, content, own)

    return work
