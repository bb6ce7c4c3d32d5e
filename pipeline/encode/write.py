"""The shard loop: items -> the files of a feature set, each written once; a killed run resumes.

`alignrec embed` and the stages `encode` and `beit3` write by it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import schemas
from pipeline import io
from pipeline.config.base import Section
from pipeline.encode import batching, distributed, quality
from pipeline.encode.base import Catalogue, Encoder
from pipeline.encode.batching import HALVED, Items
from pipeline.encode.chunks import Reading
from pipeline.encode.folder import ENCODER, SET, Facts, Span, table
from pipeline.encode.origin import Origin, plainly, release
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS, kind_of, settings_of
from pipeline.encode.rows import Rows
from pipeline.images.params import Images
from pipeline.io import fingerprint
from pipeline.run import Run
from pipeline.versions import versions

Done = Callable[[int], object]


@dataclass(frozen=True)
class Network:
    """An encoder of kind `kind` before it is loaded."""

    name: str  # of its feature set
    kind: str
    settings: Section
    folder: Path  # of what it was fitted to, or of the third-party model
    origin: Origin | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return self.origin.reads if self.origin else ENCODERS[self.kind].reads

    @property
    def packages(self) -> list[str]:
        spec = ENCODERS[self.kind]
        return sorted({spec.library, *spec.packages} - {""})

    def files(self) -> list[Path]:
        return self.origin.files() if self.origin else sorted(p for p in self.folder.glob("*") if p.is_file())

    def moved(self, folder: Path) -> "Network":
        """Return it with its files in another folder."""
        return replace(self, folder=folder, origin=self.origin and replace(self.origin, folder=folder))

    def load(self) -> Encoder:
        with self.plainly():
            encoder: Encoder = ENCODERS[self.kind].load(self.origin or self.folder, self.settings)
        return encoder

    def plainly(self) -> AbstractContextManager[None]:
        """Return a context in which whatever a third-party model raises is one line."""
        return plainly(f"encoders.{self.name}") if self.origin else nullcontext()


def find_network(encoders: Any, name: str, folder: Path) -> Network:
    """Return an encoder of section `encoders`, a third-party model with its files found and checked; or UserError."""
    kind, settings = kind_of(encoders, name), settings_of(encoders, name)
    find = ENCODERS[kind].origin
    origin = find(f"encoders.{name}", settings) if find else None
    return Network(name, kind, settings, origin.folder if origin else folder / ENCODER, origin)


def write_set(run: Run, name: str, folder: Path, items: Items, done: Done, cache: Path | None = None) -> Facts:
    """Write the feature set of an encoder that is not trained here, with what encodes a new item."""
    own, network = run.params[Encode], find_network(run.params.encoders, name, folder)
    spec = ENCODERS[network.kind]
    images = items.images if "image" in network.reads else []
    files = [items.texts.path, *images, *ENCODERS.source_files(network.kind)]
    files += network.files() if network.origin else []
    with run.alone():
        modules = ["pipeline.encode.write", ENCODERS.module(network.kind)]
        run.resume(folder, files, settings_facts(network, own), name, modules=modules)
        if spec.fit and not (folder / SET).is_file():
            spec.fit(Catalogue(run.dataset, items.texts.path, own.seed), network.settings, folder / ENCODER)
        encoder = None
        if not (folder / SET).is_file():
            encoder = network.load()
            io.write_json(folder / SET, describe(network, own, items, encoder).model_dump())
    facts = Facts.read(folder / SET, 1 << 16)
    made = (lambda: encoder) if encoder else network.load
    write_features(run, folder, facts, items, made, network, done, cache)
    return facts


def settings_facts(network: Network, own: Encode) -> dict[str, Any]:
    """Return the settings that the rows of a set depend on, for their metadata; no paths of folders."""
    batches = {"batch_size": own.batch_size, "shard_rows": own.shard_rows, "seed": own.seed}
    return batches | {"kind": network.kind} | network.settings.model_dump(mode="json") | model_facts(network)


def model_facts(network: Network) -> dict[str, Any]:
    """Return where a third-party model is from; empty for an encoder of this package."""
    if (source := network.origin) is None:
        return {}
    which = {"model": source.model, "revision": source.revision, "library": source.library}
    return which | {"modalities": list(source.reads), "prompt": source.prompt}


def describe(network: Network, own: Encode, items: Items, encoder: Encoder) -> Facts:
    spec, settings = ENCODERS[network.kind], network.settings.model_dump(mode="json")
    stored = image_facts(items)
    halves: dict[str, int] = getattr(encoder, "halves", {})
    space = {k: v for k, v in settings.items() if k != "precision"}
    weights = {"weights": io.digest(network.files())} if spec.fit else {}
    released = network.origin.fingerprint if network.origin else None
    made = dict(released) if released else {"kind": network.kind} | space | model_space(network) | weights
    made |= {name: release(name) for name in spec.packages}
    shown = {f"image_{key}": value for key, value in stored.items()} if "image" in network.reads else {}
    return Facts(
        encoder=network.name,
        kind=network.kind,
        reads=list(network.reads),  # type: ignore[arg-type]
        settings=settings,
        weights=network.name if spec.fit else None,
        parts=[],
        packages={package: version(package) for package in spec.packages},
        batch_size=own.batch_size,
        image_size=stored["size"],
        image_quality=stored["quality"],
        fingerprint=made | shown,
        spans=[Span(reads=[modality], width=width) for modality, width in halves.items()],  # type: ignore[list-item]
        model={"kind": network.kind} | model_facts(network) if network.origin else {},
    )


def model_space(network: Network) -> dict[str, Any]:
    return {key: value for key, value in model_facts(network).items() if key != "library"}


def image_facts(items: Items) -> dict[str, int]:
    """Return how the images of a dataset are stored: `size` and `quality`."""
    recorded = io.record(items.images[0]).get("params", {}) if items.images else {}
    return {key: recorded.get(key, getattr(Images(), key)) for key in ("size", "quality")}


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
        cache: folder of rows of earlier catalogues, to be used again; None: none are.
    """
    own, name = run.params[Encode], facts.encoder
    record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts.settings}
    record |= {"versions": versions(), fingerprint.KEY: facts.fingerprint}
    size, n = own.shard_rows, len(items.ids)
    shards = [(start, min(start + size, n)) for start in range(0, n, size) if run.takes(start // size)]
    todo = [shard for shard in shards if not io.shard(folder, "features", shard[0] // size).exists()]
    done(sum(stop - start for start, stop in {*shards} - {*todo}))
    halved = False
    for (start, _), rows in _encode(run, facts, items, load, network, todo, done, cache):
        if not halved and (halved := bool(pc.any(rows["halved"]).as_py())):
            run.warn(f"{name}: {HALVED}; set `encode.batch_size` to {max(1, own.batch_size // 2)}")
        width = rows["vector"].type.list_size
        about = {"encoder": {"dim": width} | facts.model} if facts.model else {}
        schema = schemas.features(width)
        path = io.shard(folder, "features", start // size)
        io.write_table(rows.select(schema.names), path, schema, record | about | quality.text_record(rows))
    if not run.part:
        finish_set(run, folder, facts)


def finish_set(run: Run, folder: Path, facts: Facts, file: Path | None = None) -> None:
    """Note what run.json records of a whole set, and warn of cut texts and equal vectors; `file`: it was imported."""
    name, shards = facts.encoder, io.shards(folder, "features")
    note: dict[str, Any] = {"encoder": {"dim": io.width(folder)} | facts.model} if facts.model else {}
    if shares := quality.text_shares(shards):
        note |= shares.facts()
        if shares.cut:
            run.warn(f"{name}: reads {shares.read:.0%} of a text on average; {shares.cut:.0%} of texts are cut")
    if note:
        run.note(**{name: note})
    quality.check_vectors(run, name, shards, file, derived=bool(facts.parts))


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
    for shard in todo:
        content = read(*shard)
        if known:
            rows, again = known.complete(content, partial(encode_rows, encoder, own=own, done=done))
            done(again)
        else:
            rows = encode_rows(encoder, content, own, done)
        yield shard, rows


def encode_rows(encoder: Encoder, content: pa.Table, own: Encode, done: Done = int) -> pa.Table:
    """Encode what `Items.read` read, n items.

    Returns:
        Schema features(F), `read` and `there`, see `Reading`, null for items without text, and `halved`, whether memory
        ran out.
    """
    texts, images = batching.texts_and_images(content)
    made = batching.encode(encoder, texts, images, own.batch_size, done, own.workers)
    rows = _append_reading(table(content, made.vectors, made.has_image, made.has_text), made.reading)
    return rows.append_column("halved", pa.array(made.halved))


def _append_reading(rows: pa.Table, reading: Reading | None) -> pa.Table:
    texts = rows["has_text"].to_numpy()
    for name, numbers in reading._asdict().items() if reading else ():
        of_all = np.zeros(len(rows), np.int64)
        of_all[texts] = numbers
        rows = rows.append_column(name, pa.array(of_all, mask=~texts))
    return rows
