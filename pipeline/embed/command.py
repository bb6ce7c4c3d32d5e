"""`alignrec embed`: any table -> a folder of Parquet files with a vector per row.

The table is laid out next to the target, like the outputs of a dataset, for the stage `encode`; files appear in the
target when all are done. A killed run resumes.
"""

import hashlib
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

import schemas
from pipeline import io, progress
from pipeline.config.base import nearest
from pipeline.config.parameters import Parameters
from pipeline.embed import prepare
from pipeline.embed.prepare import DATASET, Table, Work
from pipeline.encode import batching
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError, printable
from pipeline.features import registry, write
from pipeline.features.node import Node, shard
from pipeline.features.registry import FEATURES, Encoders
from pipeline.features.sets import FeatureSets
from pipeline.images.params import Images
from pipeline.io import fingerprint
from pipeline.items.texts import Texts
from pipeline.release import encoder as released
from pipeline.release import item_file
from pipeline.release.encoded import image_sha256, text_sha256
from pipeline.run import ALTERED, Run
from pipeline.versions import versions

FACTS = "_embed.json"  # readers of a folder of Parquet skip names that begin with _
INLINE = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)")
"""a kind that loads a third-party network, and the model"""


class Chosen(NamedTuple):
    """An encoder, for the stage `encode`."""

    name: str  # of its feature set
    sections: Encoders  # section `encoders`
    encode: Encode
    images: Images


def of_release(release: Path, name: str, encode: Encode) -> Chosen:
    facts = released.facts(release, name)
    released.refuse_absent(release, facts.packages)
    sections = {name: {"kind": "released", "model": str(release), "encoder": name}}
    size = min(facts.batch_size, released.MOST_AT_A_TIME)
    own = encode.model_copy(update={"encoders": [name], "controls": [], "batch_size": size})
    return Chosen(name, sections, own, Images(size=facts.image_size, quality=facts.image_quality))


def of_parameters(name: str, sections: Encoders, encode: Encode, images: Images) -> Chosen:
    """Return an encoder of section `encoders`, a kind, or `kind:model`; UserError if it needs more than a table."""
    if (found := INLINE.fullmatch(name)) and (spec := ENCODERS.get(found["kind"])) and spec.origin:
        sections, name = {**sections, "inline": {"kind": found["kind"], "model": found["model"]}}, "inline"
    names = [*sections, *registry.kinds()]
    if not registry.defined(sections, name):
        raise UserError(f"no encoder '{name}'{nearest(name, names)}")
    whole = registry.whole(sections, [name])
    for one in whole:
        kind = registry.kind(sections, one)
        if kind == registry.MAPPED:
            raise UserError(f"'{one}' learns from interactions, which a table lacks; make it in a project")
        if kind in ENCODERS and ENCODERS[kind].pretrained:
            raise UserError(f"'{one}' is trained by `pretrain`; name a release that carries it with --release")
        if kind in FEATURES and not registry.parts(sections, one):
            raise UserError(f"'encoders.{one}.of' is required for a table; name the encoders that it is made of")
    kinds = [registry.kind(sections, one) for one in whole]
    stored = any(kind in FEATURES and FEATURES[kind].stored for kind in kinds)  # made of sets that are written first
    listed = [one for one in whole if one == name or stored]
    return Chosen(name, sections, encode.model_copy(update={"encoders": listed, "controls": []}), images)


class Summary(NamedTuple):
    """Counts of the rows of a table."""

    items: int  # written
    images: int  # of them, with an image
    texts: int  # of them, with a text
    rejects: Path | None  # table REJECTS of other rows; None: there were none
    rejected: Counter[str]  # reason -> rows


def embed(table: Table, chosen: Chosen, params: Parameters, to: Path) -> Summary:
    """Encode a table into a new folder of features-*.parquet, schema embedded(F), and FACTS.

    Unused rows go to `<to>.rejects.parquet`. `params` have a source DATASET; `chosen` replaces their encoders.
    """
    item_file.blocks(*table)  # refuses what is not there, before a folder is made
    lock = to.absolute().with_name(f".{to.name}.lock")
    with FileLock(lock):
        try:
            if to.exists() and (not to.is_dir() or any(to.iterdir())):
                raise UserError(f"{to}: exists already; name another folder, or delete this one")
            work = _work(table, chosen, to)
            try:
                return _encode(table, chosen, params, to, work)
            except UserError:
                if not work.layout.item_ids.is_file():  # nothing that is worth keeping
                    shutil.rmtree(work.folder)
                raise
        finally:
            lock.unlink(missing_ok=True)


def _encode(table: Table, chosen: Chosen, params: Parameters, to: Path, work: Work) -> Summary:
    params = params.having(chosen.encode).model_copy(update={"encoders": dict(chosen.sections)})
    run = Run("encode", DATASET, params, work.folder, label="embed")
    sets = FeatureSets(work.layout, chosen.encode, chosen.sections)
    node = sets[chosen.name]
    with progress.heartbeat("embed", run.bars):
        if not work.layout.item_ids.is_file():
            images = chosen.images if "image" in node.reads else None
            prepare.prepare(table, work, images, chosen.encode.shard_rows)
        ids = io.read_table(work.layout.item_ids, schemas.ITEM_IDS)
        failed = write.write_all(run, sets, ids, Texts(work.layout.items))
    if failed:
        raise next(iter(failed.values()))
    counts = _finish(node, work)
    rejects = prepare.rejected(work, to.with_name(f"{to.name}.rejects.parquet"))
    summary = Summary(*counts, rejects, Counter(io.read_json(work.rejected)))
    facts = {"items": summary.items, "rejected": summary.rejected, "notes": run.notes, "measured": run.measured}
    facts[fingerprint.KEY] = fingerprint.of(io.record(node.shards[0]))
    io.write_json(work.done / FACTS, work.record | facts)
    work.done.rename(to)
    shutil.rmtree(work.folder)
    return summary


def _work(table: Table, chosen: Chosen, to: Path) -> Work:
    """Return the folder of unfinished vectors, emptied if they are of another table, encoder or folder of images."""
    folder = to.absolute().with_name(f".{to.name}.parts")
    node = FeatureSets(Work(folder).layout, chosen.encode, chosen.sections)[chosen.name]
    settings = {"encoder": chosen.name, "made": node.facts(), "encode": chosen.encode.facts()}
    columns = {"columns": table.columns._asdict(), "images": chosen.images.model_dump(include={"size", "quality"})}
    record: dict[str, Any] = {"stage": "embed", "params": settings | columns, "versions": versions()}
    files = sorted(table.path.glob("*.parquet")) if table.path.is_dir() else [table.path]
    facts = [record, [io.sha256(path) for path in files], str(table.images and table.images.absolute())]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    if not io.begun(folder, key):
        io.begin(folder, key)
    for path in io.delete_unvouched(folder):
        print(printable(f"warning: {path} {ALTERED}"), file=sys.stderr)
    return Work(folder, record)


def _finish(node: Node, work: Work) -> tuple[int, int, int]:
    counts = np.zeros(3, np.int64)
    for number, path in enumerate(node.shards):
        rows = shard(path)
        columns = {name: rows[name] for name in rows.column_names} | _inputs(rows, work.layout, int(counts[0]))
        vectors = io.matrix(rows["vector"])
        schema = schemas.embedded(vectors.shape[1])
        made = pa.table({name: columns[name] for name in schema.names})
        made_by = io.record(path)
        record = work.record | {"encoder": made_by.get("encoder", {}), fingerprint.KEY: fingerprint.of(made_by)}
        io.write_table(made, io.shard(work.done, "features", number), schema, record)
        counts += [len(rows), *(pc.sum(rows[flag]).as_py() or 0 for flag in ("has_image", "has_text"))]
    items, images, texts = counts.tolist()
    return items, images, texts


def _inputs(rows: pa.Table, layout: Any, start: int) -> dict[str, pa.Array]:
    """Return statuses of images, and hashes of inputs, of rows from item `start` on."""
    n, has_text = len(rows), rows["has_text"].to_pylist()
    texts = Texts(layout.items).slice(start, n).to_pylist()
    text = [text_sha256(one) if read else "" for one, read in zip(texts, has_text, strict=True)]
    status, reason, hashes = [], list[str](), list[str]()
    for part in _image_parts(layout, start, n):
        status += part["status"].to_pylist()
        reason += part["reason"].to_pylist()
        hashes += [image_sha256(one.as_py()) for one in part["image"]]
    if not status:
        status, reason, hashes = ["missing"] * n, ["this encoder reads no image"] * n, [""] * n
    image = [one if read else "" for one, read in zip(hashes, rows["has_image"].to_pylist(), strict=True)]
    columns = {"image_status": status, "image_reason": reason, "input_text_sha256": text, "input_image_sha256": image}
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}


def _image_parts(layout: Any, start: int, rows: int) -> Iterator[pa.Table]:
    paths, columns = sorted(layout.images.glob("images-*.parquet")), ["status", "reason", "image"]
    for path, first, n in batching.holding(paths, start, start + rows) if paths else ():
        for at in range(first, first + n, item_file.BLOCK):
            yield io.read_rows(path, schemas.IMAGES, columns, at, min(item_file.BLOCK, first + n - at))
