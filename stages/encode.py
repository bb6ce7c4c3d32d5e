"""encode: items -> feature sets, a folder each: content encoders, imported files, controls."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.encode import batching, engines, feature_sets
from pipeline.encode.base import Context
from pipeline.encode.feature_sets import Maker
from pipeline.encode.registry import ENCODERS, settings
from pipeline.io import raw_files
from pipeline.layout import Layout
from pipeline.run import Run, versions

Engine = Callable[[list[tuple[int, int]]], Iterator[tuple[tuple[int, int], pa.Table]]]
Done = Callable[[int], object]


def main(run: Run) -> None:
    """Make every feature set that the parameters name, a shard at a time; delete the others."""
    params, layout = run.params.encode, run.layout
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    texts = run.read(layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    imports = feature_sets.imports(raw_files(layout.sources), layout, len(ids), params.encoders)
    names = feature_sets.names(params, imports)
    for folder in run.folder.glob("*/"):
        if folder.name not in names:
            shutil.rmtree(folder)
    shared = params.model_dump(exclude={"encoders", "settings", "controls", "engine", "workers"})
    with run.progress(total=len(ids) * len(params.encoders), unit="item") as bar:
        for name in params.encoders:
            own = settings(params, name).model_dump()
            files, facts = feature_sets.inputs(name, layout), shared | own
            made_by = [ENCODERS.module(name), "pipeline.encode.batching"]
            run.resume(layout.features(name), files, facts, name, modules=made_by)
            throughput = batching.Throughput()
            if params.engine == "local":
                make = feature_sets.encoded(name, Context(layout, params), ids, texts, bar.update, throughput)
                _write(run, name, len(ids), _local(make), facts, throughput)
            else:
                absolute = Layout(layout.root.resolve(), layout.dataset)
                worker = partial(feature_sets.worker, name, absolute, params)
                _write(
                    run, name, len(ids), partial(engines.ENGINES[params.engine], worker), facts, throughput, bar.update
                )
            if throughput.items:
                run.note(**{name: throughput.facts(own.get("precision", "float32"))})
    for name, features in imports.items():
        run.resume(layout.features(name), features.inputs(layout), shared)
        _write(run, name, len(ids), _local(feature_sets.imported(features, ids)), shared, batching.Throughput())
    like = layout.features(names[0]) if len(names) > len(params.controls) else None
    for name in params.controls:
        run.resume(layout.features(name), io.shards(like, "features") if like else [layout.item_ids], shared, name)
        _write(
            run,
            name,
            len(ids),
            _local(feature_sets.control(name, ids, like, run.seed(name))),
            shared,
            batching.Throughput(),
        )
    run.rows_in, run.rows_out = len(ids), len(ids) * len(names)
    run.count("item without text", sum(not text.strip() for text in texts))


def _local(make: Maker) -> Engine:
    return partial(engines.local, lambda: lambda job: make(*job))


def _write(
    run: Run,
    name: str,
    items: int,
    engine: Engine,
    facts: dict[str, object],
    throughput: batching.Throughput,
    done: Done = int,
) -> None:
    """Write the missing shards; their metadata does not depend on which other feature sets are made."""
    record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts, "versions": versions()}
    size, folder = run.params.encode.shard_rows, run.layout.features(name)
    starts = [s for s in range(0, items, size) if not io.shard(folder, "features", s // size).exists()]
    for (start, stop), rows in engine([(s, min(s + size, items)) for s in starts]):
        path = io.shard(folder, "features", start // size)
        with throughput.on("write"):
            io.write_table(rows, path, schemas.features(rows["vector"].type.list_size), record)
        throughput.items += stop - start
        done(stop - start)
