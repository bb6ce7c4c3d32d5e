"""`alignrec embed`: encode a table into a folder of Parquet files, one vector per row."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEIT3_SETS, BEiT3Sets
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODERS,
    Encoders,
    Network,
    find_network,
    settings_facts,
)
from alignrec.pipeline.features.batching import Items
from alignrec.pipeline.features.encode import write_features, write_set
from alignrec.pipeline.features.names import DeclaredSets, kind_of
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.images import fetcher
from alignrec.pipeline.images.decode import Decoded, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import reject_table
from alignrec.pipeline.release import item_file
from alignrec.pipeline.release.encoder import (
    MOST_AT_A_TIME,
    ReleasedEncoders,
    hash_images,
    text_sha256,
)
from alignrec.pipeline.release.loading import Project, load_encoder, refuse_absent
from alignrec.pipeline.release.recipe import Recipe, project_recipe, release_recipe
from alignrec.pipeline.runtime import engine, progress
from alignrec.pipeline.runtime.code import versions
from alignrec.pipeline.runtime.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.section import nearest

DATASET = "table"  # name of the table as a dataset
PART = 256  # rows per checkpoint of an interrupted run: a minute at four rows per second
FACTS = "_embed.json"  # readers of Parquet folders ignore names that begin with _
UNREAD = {
    "status": "missing",
    "reason": "this encoder reads no image",
    "input_image_sha256": "",
}  # image row
INLINE = re.compile(
    r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)"
)  # kind:model, for kinds that load a third-party model


class Choice(NamedTuple):
    """An encoder of a release, of the parameters or of a project's feature set, or a combination of encoders."""

    name: str  # name of the feature set
    params: Parameters  # sections `encoders`, `encode` and `combine` reduced to what it needs
    project: Project | None = None  # contains the feature set and its encoder
    cache: Path | None = (
        None  # encoded rows of earlier tables, and of the project if `encode.reuse` is set
    )
    reads: tuple[str, ...] = ()  # modalities of the set of a release or project
    recipe: Recipe | None = None  # how that release or project makes its texts


class Summary(NamedTuple):
    """Row counts of an encoded table."""

    items: int  # written rows
    images: int  # written rows with an image
    texts: int  # written rows with a text
    rejects: Path  # table REJECTS, if rows were rejected
    rejected: Counter[str]  # reason -> rows


def choose_encoder(
    params: Parameters, name: str, root: Path, release: Path | None = None
) -> Choice:
    """Find an encoder of a release, or of section `encoders`, a kind, `kind:model`, a project's set or combination."""
    encoders, sets, cache = params.encoders, params[Combine].sets, Layout(root, DATASET).rows
    if release is not None:
        shelf = ReleasedEncoders(release)
        facts = shelf.facts(name)
        refuse_absent(release, facts.packages)
        encoders = {name: {"kind": "released", "model": str(release), "encoder": name}}
        images, size = (
            Images(size=facts.image_size, quality=facts.image_quality),
            min(facts.batch_size, MOST_AT_A_TIME),
        )
        return Choice(
            name,
            _restrict(params, [name], encoders, images, batch_size=size),
            cache=cache,
            reads=tuple(facts.reads),
            recipe=release_recipe(shelf.manifest),
        )
    if (found := INLINE.fullmatch(name)) and (spec := ENCODERS.get(found["kind"])) and spec.origin:
        encoders, name = {"inline": {"kind": found["kind"], "model": found["model"]}}, "inline"
    if name in encoders or name in ENCODERS:
        return Choice(name, _restrict(params, [name], encoders, params[Images]), cache=cache)
    datasets = sorted({path.name for stage in FEATURE_STAGES for path in (root / stage).glob("*/")})
    there = {one: dataset for dataset in datasets for one in Layout(root, dataset).feature_sets()}
    if name in there:
        project = Project(Layout(root, there[name]))
        facts = project.facts(name)
        images = params[Images].model_copy(
            update={"size": facts.image_size, "quality": facts.image_quality}
        )
        return Choice(
            name,
            _restrict(params, [], encoders, images, batch_size=facts.batch_size),
            project,
            cache,
            reads=tuple(facts.reads),
            recipe=project_recipe(params, there[name], project.layout.items),
        )
    if name not in sets:
        raise UserError(
            f"no encoder '{name}'{nearest(name, [*encoders, *ENCODERS, *sets, *there])}"
        )
    needed = DeclaredSets(params, DATASET).with_parts(name)
    for one in needed:
        kind = kind_of(sets, one)
        if one in BEIT3_SETS or (kind and (kind.refit or kind.is_ceiling)):
            raise UserError(
                f"'{one}' needs more than a table; run `dvc repro`, or name a release by --release"
            )
    combined = {one: sets[one] for one in needed if one in sets}
    networks = [one for one in needed if one not in sets]
    return Choice(
        name, _restrict(params, networks, encoders, params[Images], combined), cache=cache
    )


def _restrict(
    params: Parameters,
    listed: list[str],
    encoders: Encoders,
    images: Images,
    sets: Mapping[str, Any] = {},
    **own: Any,
) -> Parameters:
    encode = params[Encode].model_copy(update={"encoders": listed} | own)
    combine = params[Combine].model_copy(update={"sets": dict(sets), "controls": []})
    beit3 = params[BEiT3Sets].model_copy(update={"sets": []})
    return params.with_sections(encode, combine, beit3, images).model_copy(
        update={"encoders": dict(encoders)}
    )


def embed(table: item_file.Table, choice: Choice, to: Path, retry_failed: bool = False) -> Summary:
    """Encode a table into a folder, schema embedded(F); rows that failed go to `<to>.rejects.parquet`.

    The folder must be new, or with `retry_failed` an earlier output, whose rows of equal content keep their vectors.
    """
    lock, rejects = io.next_to(to, "lock"), to.with_name(f"{to.name}.rejects.parquet")
    with FileLock(lock):
        try:
            if (
                to.exists()
                and (not to.is_dir() or any(to.iterdir()))
                and not (retry_failed and (to / FACTS).is_file())
            ):
                again = (
                    "; --retry-failed encodes what failed or is new"
                    if (to / FACTS).is_file()
                    else ""
                )
                raise UserError(
                    f"{to}: exists already; name another folder, or delete this one{again}"
                )
            if rejects.exists() and not (
                rejects.is_file() and io.record(rejects).get("stage") == "embed"
            ):
                raise UserError(
                    f"{rejects}: exists already, and is not of `embed`; move it, or name another folder"
                )
            return _embed_next_to(to, rejects, table, choice)
        finally:
            lock.unlink(missing_ok=True)


def _embed_next_to(to: Path, rejects: Path, table: item_file.Table, choice: Choice) -> Summary:
    # laid out like a dataset, so that the shard loop of `encode` reads the table and an interrupted run resumes
    work = io.next_to(to, "parts")
    run, layout = Run("encode", DATASET, choice.params, work, label="embed"), Layout(work, DATASET)
    encode, images = choice.params[Encode], choice.params[Images]
    run.params = choice.params.with_sections(
        encode.model_copy(update={"shard_rows": min(PART, encode.shard_rows)})
    )
    networks = [
        find_network(choice.params.encoders, name, run.folder / name) for name in encode.encoders
    ]
    if choice.project:
        facts = choice.project.facts(choice.name)
        reads, made = {*map(str, facts.reads)}, facts.model_dump()
    else:
        reads, kept = (
            {modality for one in networks for modality in one.reads},
            choice.params[Combine].sets,
        )
        made = {
            "encoders": {one.name: settings_facts(one, encode) for one in networks},
            "sets": kept,
        }
    columns = table.columns._asdict()
    settings = {"encoder": choice.name, "made": made, "encode": encode.facts(), "columns": columns}
    settings["images"] = images.model_dump(include={"size", "quality"})
    record: dict[str, Any] = {"stage": "embed", "params": settings, "versions": versions()}
    # discard unfinished vectors of another table, encoder or image folder
    files = sorted(table.path.glob("*.parquet")) if table.path.is_dir() else [table.path]
    key = record | {"images": str(table.images and table.images.absolute())}
    run.resume(work, files, key, modules=[__name__])
    with progress.print_heartbeat("embed", run.bars):
        if not layout.item_ids.is_file():
            try:
                _lay_out(
                    table,
                    layout,
                    images if "image" in reads else None,
                    run.params[Encode].shard_rows,
                    record,
                )
            except UserError:
                shutil.rmtree(work)  # nothing to resume
                raise
        folder = _write_vectors(run, choice, networks, items := Items.of(layout))
    counts = _append_inputs(
        folder, items, work / "done", record, encode.shard_rows, table.identifier
    )
    summary = Summary(*counts, rejects, _gather_rejects(work / "rejects", rejects, record))
    about = {"items": summary.items, "rejected": summary.rejected, "notes": run.notes}
    space = io.fingerprint_of(io.record(io.shard(folder, "features", 0)))
    io.write_json(work / "done" / FACTS, record | about | {io.FINGERPRINT: space})
    if to.exists():  # an empty folder, or earlier vectors
        to.rename(work / "before")
    (work / "done").rename(to)
    shutil.rmtree(work)
    return summary


def _lay_out(
    table: item_file.Table,
    layout: Layout,
    images: Images | None,
    shard_rows: int,
    record: dict[str, Any],
) -> None:
    """Write the items, images (unless None) and rejects of a table; raises UserError if it has no items."""
    if images is None:
        table = table._replace(columns=table.columns._replace(image=""))
    rejects = layout.root / "rejects"

    def read_rows() -> Iterator[item_file.Row]:
        for number, (rows, unused) in enumerate(item_file.read_blocks(table)):
            if unused:
                raw = reject_table(table.path.name, unused)
                io.write_table(raw, io.shard(rejects, "rejects", number), schemas.REJECTS)
            yield from rows

    def write_shards() -> Iterator[pa.Table]:
        rows, start, shards = read_rows(), 0, 0
        while shard := list(islice(rows, shard_rows)):
            items, path = _item_table(shard, start), io.shard(layout.images, "images", shards)
            if images is not None and not path.is_file():
                # recorded as by stage `images`
                params = {"params": images.model_dump(include={"size", "quality"})}
                io.write_tables(
                    _decode_images(shard, items, images), path, schemas.IMAGES, record | params
                )
            for first in range(0, len(shard), io.PART):
                yield items.slice(first, io.PART)
            start, shards = start + len(shard), shards + 1

    io.write_tables(write_shards(), layout.items, schemas.ITEMS, record)
    if not io.rows([layout.items]):
        rejected = [
            io.read_table(path, schemas.REJECTS) for path in sorted(rejects.glob("*.parquet"))[:1]
        ]
        why = "".join(f"; row {one['line'][0]}: {one['reason'][0]}" for one in rejected)
        raise UserError(
            f"{table.path}: 0 items{why}; give Parquet, CSV or JSON lines, an item a row"
        )
    io.write_json(layout.sources, [])  # `combine` reads the dataset's source files from it
    ids = (
        part.select(schemas.ITEM_IDS.names) for part in io.read_tables(layout.items, schemas.ITEMS)
    )
    io.write_tables(
        ids, layout.item_ids, schemas.ITEM_IDS, record
    )  # written last, as it marks the table as complete


def _item_table(rows: Sequence[item_file.Row], start: int) -> pa.Table:
    texts = [row.text.encode(errors="replace").decode() for row in rows]
    known: dict[str, Sequence[object]] = {
        "item_id": range(start, start + len(rows)),
        "asin": [row.asin.encode(errors="replace").decode() for row in rows],
        "text": texts,
        "text_status": ["ok" if text.strip() else "empty" for text in texts],
        "tokens": [len(text.split()) for text in texts],
        "extra": ["{}"] * len(rows),
        "categories": [[]] * len(rows),
        "image_urls": [[]] * len(rows),
    }
    return pa.table(
        {f.name: pa.array(known.get(f.name, [""] * len(rows)), f.type) for f in schemas.ITEMS}
    )


def _decode_images(
    rows: Sequence[item_file.Row], items: pa.Table, params: Images
) -> Iterator[pa.Table]:
    def decode(row: item_file.Row) -> Decoded:
        if row.image is None:
            return Decoded(row.status, row.reason)
        if (data := row.read_image(params.max_bytes)) is None:
            return Decoded("too_large", f"more than {params.max_bytes:,} bytes")
        return normalise_image(data, params.size, params.quality, params.max_pixels)

    for first in range(0, len(rows), item_file.BLOCK):
        decoded = list(engine.in_threads(decode, rows[first : first + item_file.BLOCK]))
        yield fetcher.image_table(items.slice(first, item_file.BLOCK), decoded)


def _write_vectors(run: Run, choice: Choice, networks: Sequence[Network], items: Items) -> Path:
    with run.progress(total=len(items.ids) * max(1, len(networks)), unit="vector") as bar:
        if choice.project:
            facts, load = (
                choice.project.facts(choice.name),
                partial(load_encoder, choice.project, choice.name),
            )
            known = choice.cache and choice.cache / run.key([], facts.model_dump(), [__name__])
            write_features(
                run,
                run.folder / choice.name,
                facts,
                items,
                lambda: load().encoder,
                None,
                bar.update,
                known,
            )
        for network in networks:
            write_set(run, network, run.folder / network.name, items, bar.update, choice.cache)
    if not choice.params[Combine].sets:
        return run.folder / choice.name
    from alignrec.pipeline.features.combine import write_combinations  # loads SciPy

    combining = Run("combine", DATASET, run.params, run.layout.root, label="embed")
    # read and write next to the vectors of `encode`, which are not in the target yet
    combining.layout, combining.folder = run.layout, run.layout.folder("combine")
    write_combinations(combining)
    return combining.folder / choice.name


def _append_inputs(
    folder: Path, items: Items, done: Path, record: dict[str, Any], shard_rows: int, identifier: str
) -> tuple[int, int, int]:
    """Write the vectors with hashes of their inputs; return the numbers of items, images and texts."""
    counts, width, parts = np.zeros(3, np.int64), io.width(folder), io.shards(folder, "features")
    made_by = io.record(parts[0])
    made = record | {
        "encoder": made_by.get("encoder", {}),
        io.FINGERPRINT: io.fingerprint_of(made_by),
    }
    schema, pending, files = schemas.embedded_items(width, identifier), list[pa.Table](), 0
    for number, path in enumerate(parts):
        rows = io.read_table(path, schemas.features(width))
        texts = pa.array(
            map(text_sha256, items.texts.slice(int(counts[0]), len(rows)).to_pylist()), pa.string()
        )
        if items.images:
            images = hash_images(items.images[number], ["status", "reason"])
        else:
            images = pa.table(
                dict(zip(UNREAD, ([value] * len(rows) for value in UNREAD.values()), strict=True))
            )
        columns = {identifier: rows["asin"]} | {
            name: rows[name] for name in ("has_image", "has_text", "vector")
        }
        columns |= {"image_status": images["status"], "image_reason": images["reason"]}
        columns["input_text_sha256"] = pc.if_else(rows["has_text"], texts, "")
        columns["input_image_sha256"] = pc.if_else(
            rows["has_image"], images["input_image_sha256"], ""
        )
        pending.append(pa.table({name: columns[name] for name in schema.names}))
        counts += [
            len(rows),
            *(pc.sum(rows[flag]).as_py() or 0 for flag in ("has_image", "has_text")),
        ]
        held = pa.concat_tables(pending)
        while len(held) >= shard_rows or (number == len(parts) - 1 and len(held)):
            io.write_table(
                held.slice(0, shard_rows), io.shard(done, "features", files), schema, made
            )
            held, files = held.slice(shard_rows), files + 1
        pending = [held]
    n_items, n_images, n_texts = counts.tolist()
    return n_items, n_images, n_texts


def _gather_rejects(folder: Path, to: Path, record: dict[str, Any]) -> Counter[str]:
    reasons, parts = Counter[str](), sorted(folder.glob("*.parquet"))
    for path in parts:
        found = io.read_table(path, schemas.REJECTS)["reason"].to_pylist()
        reasons.update(
            "occurred before" if one.endswith("occurred before") else one for one in found
        )
    if parts:
        io.write_tables(
            (io.read_table(path, schemas.REJECTS) for path in parts), to, schemas.REJECTS, record
        )
    else:
        to.unlink(missing_ok=True)
    return reasons
