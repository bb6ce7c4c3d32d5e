"""Write a feature set shard by shard; an interrupted run resumes (n items of a shard)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.chunks import Reading
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODER,
    ENCODERS,
    Catalogue,
    Encoder,
    Network,
    batch_size_of,
    settings_facts,
)
from alignrec.pipeline.features.batching import ItemContent, encode_rows
from alignrec.pipeline.features.folder import (
    ENCODER_FILE,
    MAX_SET_BYTES,
    SET,
    Facts,
    Modality,
    Span,
)
from alignrec.pipeline.features.quality import READ, describe_model, judge_quality
from alignrec.pipeline.features.row_cache import RowCache, hash_content
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import printable
from alignrec.pipeline.runtime import cluster
from alignrec.pipeline.runtime.machine import versions
from alignrec.pipeline.runtime.run import Run

EncodedShards = Iterator[tuple[range, pa.Table]]  # row numbers of a shard, and its rows


@dataclass(frozen=True)
class WriteContext:
    """What writing a feature set needs of the run or command that it is part of."""

    record: Mapping[str, Any]  # stage and dataset, for the metadata of its files
    warn: Callable[[str], object]
    done: Callable[[int], object]  # called with the number of encoded items


@dataclass(frozen=True)
class LazyEncoder:
    """An encoder that is loaded only if a shard is missing."""

    facts: Facts
    load: Callable[[], Encoder]
    network: Network | None = None  # loaded by the nodes of a cluster; None: encode here
    cached_rows: Path | None = None  # folder of this encoder's `RowCache`

    def name_errors(self) -> AbstractContextManager[None]:
        return self.network.name_errors() if self.network else nullcontext()


def list_inputs(
    network: Network, items: ItemContent, further: ItemContent | None = None
) -> list[Path]:
    """Return the files that the feature set of an encoder depends on."""
    inputs = [items.texts.path, *ENCODERS.source_files(network.kind)]
    if "image" in network.reads:
        inputs += items.images
    if further is not None:
        inputs += further.files()
    if network.origin:
        inputs += network.files()
    return inputs


def list_modules(network: Network) -> list[str]:
    """Return the modules whose code the feature set of an encoder depends on."""
    return ["alignrec.pipeline.features.encode", ENCODERS.module(network.kind)]


def prepare_set(
    network: Network,
    items: ItemContent,
    folder: Path,
    settings: Encode,
    dataset: str,
    cached_rows: Path | None = None,  # folder of the cached rows of all encoders
) -> LazyEncoder:
    """Fit an encoder and describe its set, unless an earlier run did."""
    spec = ENCODERS[network.kind]
    load = cache(network.load)
    if not (folder / SET).is_file():
        if spec.fit:
            catalogue = Catalogue(dataset, items.texts.path, settings.seed)
            spec.fit(catalogue, network.settings, network.folder)
        facts = describe_set(network, settings, image_facts(items), load())
        if network.origin and network.origin.kept:
            facts = keep_released(network.origin.kept, facts, folder / ENCODER)
        io.write_json(folder / SET, facts.model_dump())

    facts = Facts.read(folder / SET, MAX_SET_BYTES)
    # an encoder that is fitted to the items cannot reuse rows of others
    if cached_rows is None or spec.fit:
        return LazyEncoder(facts, load, network)
    settings_of_rows = settings_facts(network, settings)
    settings_of_rows.pop("trained_on", None)
    key = Run.key(network.files(), settings_of_rows, list_modules(network))
    return LazyEncoder(facts, load, network, cached_rows / key)


def keep_released(kept: Mapping[str, Path], facts: Facts, folder: Path) -> Facts:
    """Copy the files of a released encoder, so that the set encodes new items without the release.

    Return the facts of the set with the kind and settings of that encoder.
    """
    for place, path in kept.items():
        if place != ENCODER_FILE:
            io.copy_file(path, folder / place)

    released = Facts.read(kept[ENCODER_FILE], MAX_SET_BYTES)
    return released.model_copy(
        update={
            "encoder": facts.encoder,
            "weights": facts.encoder if released.weights else None,
            "batch_size": facts.batch_size,
            "image_size": facts.image_size,
            "image_quality": facts.image_quality,
            "fingerprint": facts.fingerprint,
            "model": released.model | facts.model,
        }
    )


def image_facts(items: ItemContent) -> dict[str, Any]:
    recorded = io.record(items.images[0]).get("params", {}) if items.images else {}
    defaults = Images()
    return {
        "image_size": recorded.get("size", defaults.size),
        "image_quality": recorded.get("quality", defaults.quality),
    }


def describe_set(
    network: Network, settings: Encode, images: dict[str, Any], encoder: Encoder
) -> Facts:
    """Return the facts of a set; `images` are those of `image_facts`."""
    spec = ENCODERS[network.kind]
    model = network.model_facts()
    halves: dict[Modality, int] = getattr(encoder, "halves", {})
    facts = Facts(
        encoder=network.name,
        kind=network.kind,
        reads=list(network.reads),  # type: ignore[arg-type]
        settings=network.settings.model_dump(mode="json"),
        weights=network.name if spec.fit else None,
        packages={package: version(package) for package in spec.packages},
        batch_size=batch_size_of(network, settings),
        **images,
        spans=[Span(reads=[modality], width=width) for modality, width in halves.items()],
        model={"kind": network.kind} | model if model else {},
    )

    # a released encoder keeps its fingerprint
    if network.origin and network.origin.fingerprint:
        fingerprint = dict(network.origin.fingerprint)
        if "image" in network.reads:
            fingerprint |= images
        return facts.model_copy(update={"fingerprint": fingerprint})

    # a pooling that is not the default is in the settings
    outside = ("library", "pooling", "precision", "trained_on")
    space = {key: value for key, value in model.items() if key not in outside}
    if spec.fit:
        space["weights"] = io.digest(network.files())
    return facts.with_space(space)


def write_features(
    encoder: LazyEncoder, items: ItemContent, folder: Path, settings: Encode, context: WriteContext
) -> None:
    """Write the missing shards of a feature set."""
    facts = encoder.facts
    record = {
        **context.record,
        "features": facts.encoder,
        "params": facts.settings | facts.model,  # the name of a model replaces its path
        "versions": versions(),
        io.FINGERPRINT: facts.fingerprint,
    }
    settings = settings.model_copy(update={"batch_size": facts.batch_size})
    paths = _list_shards(items, folder, settings.shard_rows)
    missing = [shard for shard, path in paths.items() if not path.exists()]
    context.done(sum(map(len, paths)) - sum(map(len, missing)))
    if not missing:
        return

    encode = _encode_on_cluster if settings.engine == "ray" and encoder.network else _encode_here
    for shard, rows in encode(encoder, items, missing, settings, context):
        schema = schemas.features(rows["vector"].type.list_size)
        shard_record = record | _describe_rows(rows, facts)
        io.write_table(rows.select(schema.names), paths[shard], schema, shard_record)


def report_quality(facts: Facts, folder: Path, warn: Callable[[str], object]) -> dict[str, Any]:
    """Warn about the vectors of a set; return facts for run.json. UserError if all are zero.

    Also prints what was chosen for a third-party model.
    """
    if described := describe_model(facts):
        print(printable(f"{facts.encoder}: {described}"), flush=True)
    note, warnings = judge_quality(facts, io.shards(folder, "features"))
    for warning in warnings:
        warn(warning)
    return note


def _list_shards(items: ItemContent, folder: Path, shard_rows: int) -> dict[range, Path]:
    paths = {}
    n_items = len(items.ids)
    for number, start in enumerate(range(0, n_items, shard_rows)):
        shard = range(start, min(start + shard_rows, n_items))
        paths[shard] = io.shard(folder, items.stem, number)
    return paths


def _describe_rows(rows: pa.Table, facts: Facts) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if facts.model:
        described["encoder"] = {"dim": rows["vector"].type.list_size} | facts.model
    if "read" in rows.column_names:
        counted = rows.filter(rows["read"].is_valid())
        if len(counted):
            reading = Reading(*(counted[count].to_numpy() for count in Reading._fields))
            described[READ] = reading.facts()
    return described


def _encode_here(
    encoder: LazyEncoder,
    items: ItemContent,
    shards: Sequence[range],
    settings: Encode,
    context: WriteContext,
) -> EncodedShards:
    loaded = encoder.load()
    row_cache = RowCache(encoder.cached_rows) if encoder.cached_rows else None
    for shard in shards:
        content = items.read(shard, encoder.facts.reads)
        with encoder.name_errors():
            if row_cache is None:
                rows = encode_rows(loaded, content, settings, context.done)
            else:
                keys = hash_content(content)
                positions = row_cache.find(keys)
                unknown = pa.array(np.flatnonzero(positions < 0))
                new_rows = None
                if len(unknown):
                    new_rows = encode_rows(loaded, content.take(unknown), settings, context.done)
                    row_cache.add(keys.take(unknown), new_rows)
                rows = row_cache.complete(content, positions, new_rows)
                context.done(len(content) - len(unknown))
        yield shard, rows


def _encode_on_cluster(
    encoder: LazyEncoder,
    items: ItemContent,
    shards: Sequence[range],
    settings: Encode,
    context: WriteContext,
) -> EncodedShards:
    network = encoder.network
    assert network is not None
    # send inputs and the network's files along: nodes may not share a file system
    files: dict[str, np.ndarray] = {}
    for path in network.files():
        # an empty file cannot be mapped
        content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        files[str(path.relative_to(network.folder))] = np.asarray(content)

    read = partial(items.read, reads=encoder.facts.reads)
    work = partial(_encode_on_node, network.move_to(network.folder), settings, files)
    for shard, rows in cluster.run_jobs(read, work, shards, context.warn, network.packages):
        yield shard, rows
        context.done(len(shard))


def _encode_on_node(
    network: Network, settings: Encode, files: dict[str, np.ndarray]
) -> cluster.Work[range]:
    with TemporaryDirectory(prefix="alignrec-") as folder:
        home = Path(folder, network.folder.name)
        for path, content in files.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(home / path)
        encoder = network.move_to(home).load()

    def work(shard: range, content: pa.Table) -> pa.Table:
        with network.name_errors():
            return encode_rows(encoder, content, settings)

    return work
