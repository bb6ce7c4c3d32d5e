"""Feature sets on disk: rows in shards, each written once; an interrupted set goes on."""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Any

import pyarrow as pa

import schemas
from pipeline import engine, io
from pipeline.encode.batching import HALVED
from pipeline.encode.origin import plainly
from pipeline.encode.params import Encode
from pipeline.encode.throughput import Throughput
from pipeline.errors import UserError
from pipeline.features import earlier, reading, sameness
from pipeline.features.distributed import Cluster
from pipeline.features.encoded import Encoded, networks, settled
from pipeline.features.gathered import Gathered, tells
from pipeline.features.imported import Imported
from pipeline.features.node import Items, Maker, Node, width
from pipeline.features.registry import ordered
from pipeline.features.sets import FeatureSets
from pipeline.io import fingerprint
from pipeline.items.texts import Texts
from pipeline.ops.device import visible
from pipeline.run import Run
from pipeline.versions import versions

Rows = tuple[int, int]  # the first and the last + 1 item of a shard
Done = Callable[[int], object]
NOT_OF_A_SET = ("encoders", "controls", "reuse")
"""keys of `encode` that say which sets there are, and from where rows are taken, which each file tells for itself"""
PRECISIONS = ("float32", "bfloat16", "int8")  # those that a machine may choose


def write_all(run: Run, sets: FeatureSets, ids: pa.Table, texts: Texts) -> dict[str, Exception]:
    """Write all feature sets after what they are made of (of a part, those of none); return those that failed."""
    failed: dict[str, Exception] = {}
    on = cluster(run, sets.params)
    with run.progress(total=len(ids) * len(sets.order), unit="item") as bar:
        for name in sets.order:
            if run.part and sets.parts(name):
                continue  # it is made of whole sets, soon
            try:
                if lost := [part for part in ordered([name], sets.parts) if part in failed]:
                    raise UserError(f"'{lost[0]}', which it is made of, failed")
                write(run, sets[name], on, ids, texts, bar.update)
            except Exception as e:  # whatever it is, the others do not depend on it; `main` raises it
                failed[name] = e
    return failed


def write(run: Run, given: Node, on: Cluster | None, ids: pa.Table, texts: Texts, done: Done) -> None:
    """Write a feature set, and note where its time went and where its network is from."""
    node, throughput = settled(given, on.decided if on else Encoded.decided), Throughput()
    name, params = node.name, node.params
    facts = {key: value for key, value in params.facts().items() if key not in NOT_OF_A_SET} | node.facts()
    with run.alone():
        if getattr(given.own, "precision", None) == "auto":
            _refuse_another_choice(run, node, facts)
        run.resume(node.folder, node.shared(), facts, name, modules=node.code())
    record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts, "versions": versions()}
    record[fingerprint.KEY] = node.fingerprint()
    with plainly(f"encoders.{name}") if any(one.context.origin for one in networks(node)) else nullcontext():
        items = Items(ids, texts, throughput, _in_turn(done))
        with run.alone():
            for one in networks(node, own=True):
                one.fit(run.progress)
            node.prepare(run.progress)
            if params.reuse:
                _lay_aside(node, items)
        _shards(run, node, items, on, record, done if on else int)
    if taken := throughput.taken_over:
        print(f"{run.label}: {name}: {taken:,} rows taken over, {throughput.items:,} encoded", flush=True)
    if not run.part:
        rmtree(node.folder / earlier.FOLDER, ignore_errors=True)
        _note(run, node, facts, throughput)
        path = node.file.path if isinstance(node, Imported) else None
        sameness.check(run, name, path, derived=bool(node.of) and path is None)
        for part in node.of if isinstance(node, Gathered) else ():
            if not tells(part):
                run.warn(f"{name}: made without {part.name}, which tells no items apart")


def _note(run: Run, node: Node, facts: dict[str, Any], throughput: Throughput) -> None:
    """Note what run.json tells of a whole set."""
    if isinstance(node, Imported):
        run.count(f"{node.name}: item without a vector", node.lacking())
    precision = {key: value for key, value in facts.items() if key == "precision"}
    timing = throughput.facts(str(precision.get("precision", "float32"))) if "compute" in throughput.seconds else {}
    taken = throughput.taken_over
    rows = {"taken_over": taken, "encoded": throughput.items} if taken else {}
    if measured := timing | rows:
        run.measure(**{node.name: measured})
    if note := precision | _named(node, width(node.shards[0])) | _text(run, node):
        run.note(**{node.name: note})


def cluster(run: Run, params: Encode) -> Cluster | None:
    """Return where networks run; None: in this process."""
    return Cluster(partial(run.warn, recorded=False)) if params.engine == "ray" else None


def _refuse_another_choice(run: Run, node: Node, facts: dict[str, Any]) -> None:
    """Raise UserError where the set was begun on a machine that chose another precision: all of it would be deleted."""
    for then in {*PRECISIONS} - {facts["precision"]}:
        if io.begun(node.folder, run.key(node.shared(), (facts | {"precision": then}, node.name), node.code())):
            network = networks(node)[0]
            raise UserError(
                f"{node.folder}: begun in {then}, and this machine would choose {facts['precision']}; give "
                f"encoders.{network.entry.variant_of or network.name}.precision, or delete that folder"
            )


def _named(node: Node, width: int) -> dict[str, Any]:
    """Return what a record tells of a set: whose networks made it if not ours, and what was trained for it here."""
    about, trained = node.about(), [file for one in networks(node, own=True) for file in one.weights()]
    named = {"encoder": {"kind": node.kind, "dim": width} | about} if about else {}
    return named | ({"weights": trained} if trained else {})


def _text(run: Run, node: Node) -> dict[str, float]:
    """Return how much of the texts was read, and say so where some are cut."""
    if (shares := reading.shares(node.shards)) is None:
        return {}
    if shares.cut:
        run.warn(shares.line(node.name))
    return shares.facts()


def _in_turn(done: Done) -> Done:
    """Return a function that threads of several devices may call; bars are not made for that."""
    lock = Lock()

    def locked(items: int) -> None:
        with lock:
            done(items)

    return locked


def _shards(run: Run, node: Node, items: Items, on: Cluster | None, record: dict[str, Any], done: Done) -> None:
    """Write the shards that are not there as they would be now; metadata do not depend on what other sets are made."""
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
    for (start, stop), rows in _made(node, items, on, todo):
        path, numbers = io.shard(node.folder, "features", start // size), rows["vector"].type.list_size
        taken, schema = _counted(run, node, items.throughput, rows), schemas.features(numbers)
        with items.throughput.on("write"):
            kept = record | _named(node, numbers) | reading.record(rows) | ({"taken_over": taken} if taken else {})
            io.write_table(rows.select(schema.names), path, schema, kept)
            earlier.write_mark(path, todo[start, stop], rows)
        done(stop - start)


def _made(node: Node, items: Items, on: Cluster | None, todo: Collection[Rows]) -> Iterator[tuple[Rows, pa.Table]]:
    """Yield shards with their rows, as they are made."""
    if on:
        return on.rows(node, items, [*todo])
    devices = visible()
    place = engine.Devices(devices) if len(devices) > 1 else None
    return engine.map(lambda: _of_shard(node.rows(items)), todo, place, ordered=False, ahead=1)


def _of_shard(make: Maker) -> Callable[[Rows], pa.Table]:
    return lambda shard: make(*shard)


def _counted(run: Run, node: Node, throughput: Throughput, rows: pa.Table) -> int:
    """Count how rows were made, and say it when the first were encoded in half a batch; return those taken over."""
    taken, halved = earlier.count(rows, "taken_over"), earlier.count(rows, "halved")
    if halved and not throughput.halved:
        run.warn(f"{node.name}: {HALVED}; set `encode.batch_size` to {max(1, node.params.batch_size // 2)}")
    throughput.halved += halved
    throughput.taken_over += taken
    throughput.items += len(rows) - taken
    return taken


def _lay_aside(node: Node, items: Items) -> None:
    """Lay aside the files that other items are to take the place of."""
    size = node.params.shard_rows
    for path in sorted(node.folder.glob("features-*.parquet")):
        start, mark = _first(path, size), earlier.read_mark(path)
        if not mark or not mark.rows or (start < len(items.ids) and mark.inputs == _inputs(node, items, start)):
            continue
        if mark.sha256 == io.sha256(path):
            earlier.lay_aside(path, mark)


def _inputs(node: Node, items: Items, start: int) -> str:
    """Return what the file that begins with an item depends on, see `Node.own_inputs`."""
    return json.dumps(node.own_inputs(items, start, min(start + node.params.shard_rows, len(items.ids))))


def _first(path: Path, size: int) -> int:
    """Return the first item of a file."""
    return int(path.stem.partition("-")[2]) * size
