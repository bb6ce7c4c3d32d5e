"""Feature sets on disk: rows in shards, each written once; an interrupted set resumes."""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.encode.batching import HALVED
from pipeline.encode.origin import plainly
from pipeline.errors import UserError
from pipeline.features import distributed, earlier, quality
from pipeline.features.encoded import Encoded, networks, with_progress
from pipeline.features.imported import Imported
from pipeline.features.linear import Gathered, Linear
from pipeline.features.node import Items, Node, width
from pipeline.features.registry import ordered
from pipeline.features.sets import FeatureSets
from pipeline.io import fingerprint
from pipeline.items.texts import Texts
from pipeline.run import Run
from pipeline.vectors.registry import READERS
from pipeline.versions import versions

Rows = tuple[int, int]  # the first and the last + 1 item of a shard
Done = Callable[[int], object]
NOT_OF_A_SET = ("encoders", "controls", "reuse")  # keys of `encode` that the rows of a set do not depend on


@dataclass
class Counts:
    """Rows of a feature set."""

    encoded: int = 0
    reused: int = 0
    halved: int = 0  # encoded in half a batch


def write_all(run: Run, sets: FeatureSets, ids: pa.Table, texts: Texts) -> dict[str, Exception]:
    """Write all feature sets, parts first (in part of a run, only sets without parts); return those that failed."""
    failed: dict[str, Exception] = {}
    with run.progress(total=len(ids) * len(sets.order), unit="item") as bar:
        for name in sets.order:
            if run.part and sets.parts(name):
                continue  # it needs whole sets
            try:
                if lost := [part for part in ordered([name], sets.parts) if part in failed]:
                    raise UserError(f"its part '{lost[0]}' failed")
                write(run, sets[name], ids, texts, bar.update)
            except Exception as e:  # other sets do not depend on it; the stage raises it
                failed[name] = e
    return failed


def write(run: Run, node: Node, ids: pa.Table, texts: Texts, done: Done) -> None:
    """Write a feature set, and note the provenance of its network."""
    name, params = node.name, node.params
    facts = {key: value for key, value in params.facts().items() if key not in NOT_OF_A_SET} | node.facts()
    with run.alone():
        run.resume(node.folder, node.shared(), facts, name, modules=modules(node))
    record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts, "versions": versions()}
    record[fingerprint.KEY] = _fingerprint(node)
    with plainly(f"encoders.{name}") if any(one.context.origin for one in networks(node)) else nullcontext():
        items = Items(ids, texts, done)
        with run.alone():
            if isinstance(node, Linear):
                node.choose()
            if params.reuse:
                _lay_aside(node, items)
        counts = _write_shards(run, node, items, record, done if params.engine == "ray" else int)
    if counts.reused:
        print(f"{run.label}: {name}: {counts.reused:,} rows taken over, {counts.encoded:,} encoded", flush=True)
    if not run.part:
        run.measure(**{name: {"taken_over": counts.reused, "encoded": counts.encoded}})
        _finish(run, node, facts)


def _finish(run: Run, node: Node, facts: dict[str, Any]) -> None:
    """Delete earlier rows, note what run.json records of a whole set, and warn of equal vectors."""
    rmtree(node.folder / earlier.FOLDER, ignore_errors=True)
    if isinstance(node, Imported):
        run.count(f"{node.name}: item without a vector", node.lacking())
    precision = {key: value for key, value in facts.items() if key == "precision"}
    note = precision | _provenance(node, width(node.shards[0]))
    if shares := quality.text_shares(node.shards):
        note |= shares.facts()
        if shares.cut:
            run.warn(f"{node.name}: reads {shares.read:.0%} of a text on average; {shares.cut:.0%} of texts are cut")
    if note:
        run.note(**{node.name: note})
    path = node.file.path if isinstance(node, Imported) else None
    quality.check_vectors(run, node.name, path, derived=bool(node.of) and path is None)
    for part in node.of if isinstance(node, Gathered) and len(node.of) > 1 else ():
        if not quality.distinguishes(part.shards):
            run.warn(f"{node.name}: made without {part.name}, whose vectors are all the same")


def modules(node: Node) -> list[str]:
    """Return the modules that its rows depend on, each once."""
    own = [node.module] if isinstance(node, Encoded) else []
    own += [READERS.module(node.file.format)] if isinstance(node, Imported) else []
    return list(dict.fromkeys([*own, type(node).__module__, *(name for part in node.of for name in modules(part))]))


def _fingerprint(node: Node) -> dict[str, Any]:
    """Return all that decides the space, see pipeline/io/fingerprint.py; its parts have been written."""
    space = node.space() | ({"weights": io.digest(files)} if (files := node.shared()) else {})
    shards = node.images(node.reads) if isinstance(node, Encoded) else []
    images = io.record(shards[0]).get("params", {}) if shards else {}
    return space | {f"image_{key}": images[key] for key in ("size", "quality") if key in images}


def _provenance(node: Node, width: int) -> dict[str, Any]:
    return {"encoder": {"kind": node.kind, "dim": width} | about} if (about := node.about()) else {}


def _write_shards(run: Run, node: Node, items: Items, record: dict[str, Any], done: Done) -> Counts:
    """Write the shards that are missing or outdated; metadata do not depend on which other sets are made."""
    counts = Counts()
    size, n, todo = node.params.shard_rows, len(items.ids), dict[Rows, str]()
    for path in node.folder.glob("features-*.parquet"):
        if _first(path, size) >= n:
            path.unlink(missing_ok=True)
    for start in filter(lambda start: run.takes(start // size), range(0, n, size)):
        path, stop = io.shard(node.folder, "features", start // size), min(start + size, n)
        inputs, mark = _inputs(node, items, start), earlier.read_mark(path)
        if not (path.exists() and mark and mark.inputs == inputs and (node.params.reuse or not mark.taken_over)):
            earlier.mark_of(path).unlink(missing_ok=True)
            todo[start, stop] = inputs
    for (start, stop), rows in _encode(run, node, items, todo):
        path, numbers = io.shard(node.folder, "features", start // size), rows["vector"].type.list_size
        reused, schema = _count(run, node, counts, rows), schemas.features(numbers)
        kept = record | _provenance(node, numbers) | quality.text_record(rows)
        io.write_table(rows.select(schema.names), path, schema, kept | ({"taken_over": reused} if reused else {}))
        earlier.write_mark(path, todo[start, stop], rows)
        done(stop - start)
    return counts


def _encode(run: Run, node: Node, items: Items, todo: Collection[Rows]) -> Iterator[tuple[Rows, pa.Table]]:
    """Yield shards with their rows."""
    if node.params.engine == "ray":
        yield from distributed.encode(node, items, [*todo], partial(run.warn, recorded=False))
    elif todo:
        make = with_progress(node, items)
        yield from ((shard, make(*shard)) for shard in todo)


def _count(run: Run, node: Node, counts: Counts, rows: pa.Table) -> int:
    """Count encoded and reused rows, warn of the first halved batch, and return the number of reused rows."""
    reused, halved = earlier.count(rows, "taken_over"), earlier.count(rows, "halved")
    if halved and not counts.halved:
        run.warn(f"{node.name}: {HALVED}; set `encode.batch_size` to {max(1, node.params.batch_size // 2)}")
    counts.halved += halved
    counts.reused += reused
    counts.encoded += len(rows) - reused
    return reused


def _lay_aside(node: Node, items: Items) -> None:
    """Move files that new ones will replace to the earlier ones."""
    size = node.params.shard_rows
    for path in sorted(node.folder.glob("features-*.parquet")):
        start, mark = _first(path, size), earlier.read_mark(path)
        if not mark or not mark.rows or (start < len(items.ids) and mark.inputs == _inputs(node, items, start)):
            continue
        if mark.sha256 == io.sha256(path):
            earlier.lay_aside(path, mark)


def _inputs(node: Node, items: Items, start: int) -> str:
    return json.dumps(node.own_inputs(items, start, min(start + node.params.shard_rows, len(items.ids))))


def _first(path: Path, size: int) -> int:
    return int(path.stem.partition("-")[2]) * size
