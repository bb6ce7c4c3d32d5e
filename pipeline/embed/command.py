"""`alignrec embed`: any table -> a folder of Parquet files with a vector per row.

The table is laid out next to the target, like the outputs of a dataset; files appear in the target when all are done. A
killed run resumes.
"""

import hashlib
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.combine import names
from alignrec.pipeline.combine.params import Combine
from alignrec.pipeline.config.base import nearest
from alignrec.pipeline.config.parameters import Parameters
from alignrec.pipeline.embed import prepare
from alignrec.pipeline.embed.prepare import DATASET, Table, Work
from alignrec.pipeline.encode import batching
from alignrec.pipeline.encode.base import Encoder
from alignrec.pipeline.encode.batching import Items
from alignrec.pipeline.encode.load import Project, load, refuse_absent
from alignrec.pipeline.encode.network import Network, find_network, settings_facts
from alignrec.pipeline.encode.params import TRAINED, BEiT3, Encode
from alignrec.pipeline.encode.registry import ENCODERS, Encoders
from alignrec.pipeline.encode.write import write_features, write_set
from alignrec.pipeline.errors import UserError, printable
from alignrec.pipeline.harness import progress
from alignrec.pipeline.harness.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.harness.run import ALTERED, Run
from alignrec.pipeline.harness.versions import versions
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io import fingerprint
from alignrec.pipeline.items.texts import Texts
from alignrec.pipeline.release import item_file
from alignrec.pipeline.release.encoded import image_sha256, text_sha256
from alignrec.pipeline.release.encoder import MOST_AT_A_TIME, Carried

FACTS = "_embed.json"  # readers of a folder of Parquet skip names that begin with _
INLINE = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)")
"""a kind that loads a third-party network, and the model"""


class Chosen(NamedTuple):
    """An encoder: of a release, of section `encoders`, of a project's feature set, or a combination of encoders."""

    name: str  # of its feature set
    sections: Encoders  # section `encoders`
    encode: Encode  # `encoders` lists the networks that it needs
    images: Images
    project: Project | None = None  # has the set, with its encoder
    sets: Mapping[str, Any] = {}  # section `combine.sets`, the combinations that it needs
    cache: Path | None = None  # of rows that `encode` and earlier tables have, with `encode.reuse`


def of_release(release: Path, name: str, encode: Encode) -> Chosen:
    facts = Carried(release).facts(name)
    refuse_absent(release, facts.packages)
    sections = {name: {"kind": "released", "model": str(release), "encoder": name}}
    own = encode.model_copy(update={"batch_size": min(facts.batch_size, MOST_AT_A_TIME), "encoders": [name]})
    return Chosen(name, sections, own, Images(size=facts.image_size, quality=facts.image_quality))


def of_parameters(name: str, params: Parameters, encode: Encode, root: Path) -> Chosen:
    """Return an encoder of section `encoders`, a kind, `kind:model`, a feature set of the project, or a combination."""
    sections, images, sets = params.encoders, params[Images], params[Combine].sets
    cache = Layout(root, DATASET).rows if encode.reuse else None
    if (found := INLINE.fullmatch(name)) and (spec := ENCODERS.get(found["kind"])) and spec.origin:
        sections, name = {"inline": {"kind": found["kind"], "model": found["model"]}}, "inline"
    if name in sections or name in ENCODERS:
        return Chosen(name, sections, encode.model_copy(update={"encoders": [name]}), images, cache=cache)
    datasets = sorted({path.name for stage in FEATURE_STAGES for path in (root / stage).glob("*/")})
    there = {one: dataset for dataset in datasets for one in Layout(root, dataset).feature_sets()}
    if name in there:
        home = Project(Layout(root, there[name]))
        facts = home.facts(name)
        own = encode.model_copy(update={"batch_size": facts.batch_size})
        stored = images.model_copy(update={"size": facts.image_size, "quality": facts.image_quality})
        return Chosen(name, sections, own, stored, home)
    if name not in sets:
        raise UserError(f"no encoder '{name}'{nearest(name, [*sections, *ENCODERS, *sets, *there])}")
    whole = names.whole(params, DATASET, name)
    for one in whole:
        if one in TRAINED or names.kind_of(sets, one) in (names.MAPPED, names.PLANTED):
            raise UserError(f"'{one}' needs more than a table; run `dvc repro`, or name a release by --release")
    own = encode.model_copy(update={"encoders": [one for one in whole if one not in sets]})
    return Chosen(name, sections, own, images, sets={one: sets[one] for one in whole if one in sets}, cache=cache)


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
    combine = params[Combine].model_copy(update={"sets": dict(chosen.sets), "controls": []})
    trained = params[BEiT3].model_copy(update={"sets": []})
    params = params.having(chosen.encode, trained, combine).model_copy(update={"encoders": dict(chosen.sections)})
    run = Run("encode", DATASET, params, work.folder, label="embed")
    with progress.heartbeat("embed", run.bars):
        if not work.layout.item_ids.is_file():
            images = chosen.images if "image" in _reads(chosen, work) else None
            prepare.prepare(table, work, images, chosen.encode.shard_rows)
        folder = _write(run, chosen, Items.of(work.layout))
    counts = _finish(folder, work)
    rejects = prepare.rejected(work, to.with_name(f"{to.name}.rejects.parquet"))
    summary = Summary(*counts, rejects, Counter(io.read_json(work.rejected)))
    about = {"items": summary.items, "rejected": summary.rejected, "notes": run.notes, "measured": run.measured}
    made = fingerprint.of(io.record(io.shard(folder, "features", 0)))
    io.write_json(work.done / FACTS, work.record | about | {fingerprint.KEY: made})
    work.done.rename(to)
    shutil.rmtree(work.folder)
    return summary


def _write(run: Run, chosen: Chosen, items: Items) -> Path:
    needed = 1 if chosen.project else len(chosen.encode.encoders)
    with run.progress(total=len(items.ids) * needed, unit="item") as bar:
        if chosen.project:
            facts = chosen.project.facts(chosen.name)
            write_features(run, run.folder / chosen.name, facts, items, partial(_load, chosen), None, bar.update)
        for name in () if chosen.project else chosen.encode.encoders:
            write_set(run, name, run.folder / name, items, bar.update, chosen.cache)
    if not chosen.sets:
        return run.folder / chosen.name
    from alignrec.pipeline.combine.write import write_combinations  # loads SciPy

    own = Run("combine", DATASET, run.params, run.layout.root, label="embed")
    own.layout, own.folder = run.layout, run.layout.folder("combine")
    write_combinations(own)
    return own.folder / chosen.name


def _load(chosen: Chosen) -> Encoder:
    assert chosen.project
    return load(chosen.project, chosen.name).encoder


def _reads(chosen: Chosen, work: Work) -> list[str]:
    if chosen.project:
        return list(chosen.project.facts(chosen.name).reads)
    return [modality for network in _networks(chosen, work.folder) for modality in network.reads]


def _networks(chosen: Chosen, folder: Path) -> list[Network]:
    return [find_network(chosen.sections, name, folder) for name in chosen.encode.encoders]


def _work(table: Table, chosen: Chosen, to: Path) -> Work:
    """Return the folder of unfinished vectors, emptied if they are of another table, encoder or folder of images."""
    folder = to.absolute().with_name(f".{to.name}.parts")
    if chosen.project:
        made: dict[str, Any] = chosen.project.facts(chosen.name).model_dump()
    else:
        networks = {one.name: settings_facts(one, chosen.encode) for one in _networks(chosen, folder)}
        made = {"encoders": networks, "sets": chosen.sets}
    settings = {"encoder": chosen.name, "made": made, "encode": chosen.encode.facts()}
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


def _finish(folder: Path, work: Work) -> tuple[int, int, int]:
    counts = np.zeros(3, np.int64)
    for number, path in enumerate(io.shards(folder, "features")):
        rows = io.read_table(path, schemas.features(io.width(folder)))
        columns = {name: rows[name] for name in rows.column_names} | _inputs(rows, work.layout, int(counts[0]))
        schema = schemas.embedded(io.width(folder))
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
