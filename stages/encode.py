"""encode: items -> feature sets, a folder each: content encoders, imported files, controls."""

from __future__ import annotations

import shutil
from typing import Any

import schemas
from pipeline import io
from pipeline.encode import registry
from pipeline.encode.params import Encode
from pipeline.errors import UserError
from pipeline.io import raw_files
from pipeline.registry import Registry
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import Needs, Stage
from stages.download import DOWNLOAD
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS
from stages.pretrain import PRETRAIN


def main(run: Run) -> None:
    """Make every feature set that the parameters name, a shard at a time; delete the others.

    Raises:
        UserError: encoders failed; all others have been run.
    """
    from pipeline.encode import batching, feature_sets, sameness, write  # load torch

    params, layout = run.params[Encode], run.layout
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    texts = run.read(layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    imports = feature_sets.imports(raw_files(layout.sources), layout, len(ids), params.encoders)
    names = feature_sets.names(params, imports)
    for folder in run.folder.glob("*/"):
        if folder.name not in names:
            shutil.rmtree(folder)
    shared = write.shared(run)
    late = [one for one in params.encoders if registry.made_of(run.params.encoders, one, imports)]
    failed = write.encode_all(run, [one for one in params.encoders if one not in late], ids, texts, {})
    for name, ready in imports.items():
        run.resume(layout.features(name), ready.inputs(layout), shared)
        write.write(run, name, len(ids), write.local(feature_sets.imported(ready, ids)), shared, batching.Throughput())
        run.count(f"{name}: item without a vector", feature_sets.without_vector(layout.features(name)))
        sameness.check(run, name, ready.path)
    failed = write.encode_all(run, late, ids, texts, failed)
    like = layout.features(names[0]) if len(names) > len(params.controls) else None
    for name in params.controls if names[0] not in failed else []:
        run.resume(layout.features(name), io.shards(like, "features") if like else [layout.item_ids], shared, name)
        write.write(
            run,
            name,
            len(ids),
            write.local(feature_sets.control(name, ids, like, run.seed(name))),
            shared,
            batching.Throughput(),
        )
    if faults := [error for error in failed.values() if not isinstance(error, UserError)]:
        raise faults[0]
    if failed:
        said = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(f"encode {run.dataset}: {len(failed)} of {len(params.encoders)} encoders failed: {said}")
    run.rows_in, run.rows_out = len(ids), len(ids) * len(names)
    run.count("item without text", sum(not text.strip() for text in texts))


def needs(run: Run) -> Needs:
    """Of an encoder that loads somebody's network, its files and the releases of its packages count."""
    from pipeline.encode import needs as encoding

    encoders, names = run.params.encoders, encoding.encoded(run.params)
    networks = [path for network in encoding.pretrained(encoders, names) for path in network.files()]
    facts = encoding.settings(encoders, names), run.source.model_dump(mode="json"), encoding.libraries(encoders, names)
    kinds = dict.fromkeys(registry.kind(encoders, name) for name in names)
    parts: list[tuple[Registry[Any], str]] = [
        (SOURCES, run.source.kind),
        *((registry.ENCODERS, kind) for kind in kinds),
    ]
    return ENCODE.depends(run, *facts, files=[*ENCODE.inputs(run), *networks], parts=parts)


ENCODE = Stage(
    "encode",
    does="items -> feature sets: beit3 is CLS, whitened, raw beside it; and the controls",
    writes="`<features>/features-*.parquet`",
    reads=(DOWNLOAD, INTERACTIONS, ITEMS, IMAGES, PRETRAIN),
    params=Encode,
    speed=frozenset({"engine", "workers"}),
    main=main,
    needs=needs,
    loads=(SOURCES, registry.ENCODERS),
)
