"""Feature sets on disk: an encoder's rows in shards, each written once; an interrupted set goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.encode import batching, contexts, engines, feature_sets, registry, sameness
from pipeline.encode.base import Context
from pipeline.encode.feature_sets import Maker
from pipeline.encode.origin import plainly
from pipeline.encode.whitened import WhitenedParams
from pipeline.errors import UserError
from pipeline.ops.device import visible
from pipeline.run import Run, versions

Engine = Callable[[list[tuple[int, int]]], Iterator[tuple[tuple[int, int], pa.Table]]]
Done = Callable[[int], object]


def encode_all(
    run: Run, names: Sequence[str], ids: pa.Table, texts: Sequence[str], before: Mapping[str, Exception]
) -> dict[str, Exception]:
    """Run encoders, parts before what is made of them.

    Args:
        run: of the stage, or of an arm of pre-training.
        names: of the encoders.
        ids: item_id and asin of all items.
        texts: of all items.
        before: encoders that failed, and why; what is made of them fails too.

    Returns:
        those that failed, which keep what they had made, `before` included, and why.
    """
    failed = dict(before)
    with run.progress(total=len(ids) * len(names), unit="item") as bar:
        for name in (one for one in registry.whole(run.params.encoders, names) if one in names):
            try:
                if lost := [part for part in registry.whole(run.params.encoders, [name]) if part in failed]:
                    raise UserError(f"'{lost[0]}', which it is made of, failed")
                encode(run, name, ids, texts, bar.update)
            except Exception as e:  # whatever it is, the others do not depend on it; `main` raises it
                failed[name] = e
    return failed


def encode(run: Run, name: str, ids: pa.Table, texts: Sequence[str], done: Done) -> None:
    """Write an encoder's features, and note where its time went and where its network is from."""
    params, layout, encoders = run.params.encode, run.layout, run.params.encoders
    context = contexts.settled(contexts.context_of(layout, params, encoders, name))
    facts, throughput = shared(run) | contexts.facts(context), batching.Throughput()
    run.resume(layout.features(name), contexts.inputs(context), facts, name, modules=_modules(run, name))
    with plainly(f"encoders.{name}") if context.origin or context.parts else nullcontext():
        contexts.fit(context, run.progress)
        if params.engine == "local":
            make = partial(feature_sets.rows_of, context, ids, texts, _in_turn(done), throughput)
            engine = partial(engines.local, lambda: _worker(make()), devices=visible())
            write(run, name, len(ids), engine, facts, throughput, context=context)
        else:
            there = replace(layout, root=layout.root.resolve())
            worker = partial(feature_sets.worker, name, there, params, contexts.pinned(context))
            engine = partial(engines.ENGINES[params.engine], worker)
            write(run, name, len(ids), engine, facts, throughput, done, context)
    precision = {key: value for key, value in facts.items() if key == "precision"}
    timing = throughput.facts(str(precision.get("precision", "float32"))) if throughput.items else {}
    width = pq.read_schema(io.shards(layout.features(name), "features")[0]).field("vector").type.list_size
    if note := precision | timing | _named(context, width):
        run.note(**{name: note})
    sameness.check(run, name, whitened=isinstance(registry.settings(encoders, name), WhitenedParams))


def _named(context: Context | None, width: int) -> dict[str, Any]:
    """Return what a record tells of an encoder: whose network it is if not ours, and what was trained for it here."""
    about = contexts.about(context, width) if context else {}
    trained = contexts.weights(context) if context else []
    return ({"encoder": about} if about else {}) | ({"weights": trained} if trained else {})


def shared(run: Run) -> dict[str, object]:
    """Return the parameters that every feature set depends on."""
    return run.params.encode.model_dump(exclude={"encoders", "controls", "engine", "workers"})


def _modules(run: Run, name: str) -> list[str]:
    """Return the modules whose code makes an encoder's features."""
    kinds = [registry.kind(run.params.encoders, part) for part in registry.whole(run.params.encoders, [name])]
    return [*dict.fromkeys(registry.ENCODERS.module(kind) for kind in kinds), "pipeline.encode.batching"]


def local(make: Maker) -> Engine:
    """Return the engine that makes rows in this process."""
    return partial(engines.local, lambda: _worker(make))


def _in_turn(done: Done) -> Done:
    """Return a function that threads of several devices may call; bars are not made for that."""
    lock = Lock()

    def locked(items: int) -> None:
        with lock:
            done(items)

    return locked


def _worker(make: Maker) -> engines.Worker:
    return lambda job: make(*job)


def write(
    run: Run,
    name: str,
    items: int,
    engine: Engine,
    facts: dict[str, object],
    throughput: batching.Throughput,
    done: Done = int,
    context: Context | None = None,
) -> None:
    """Write the missing shards; their metadata does not depend on which other feature sets are made."""
    record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts, "versions": versions()}
    size, folder = run.params.encode.shard_rows, run.layout.features(name)
    starts = [s for s in range(0, items, size) if not io.shard(folder, "features", s // size).exists()]
    for (start, stop), rows in engine([(s, min(s + size, items)) for s in starts]):
        path, width = io.shard(folder, "features", start // size), rows["vector"].type.list_size
        with throughput.on("write"):
            io.write_table(rows, path, schemas.features(width), record | _named(context, width))
        throughput.items += stop - start
        done(stop - start)
