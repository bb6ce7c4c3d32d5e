"""`alignrec embed`: encode a table into a folder of Parquet files, one vector per row."""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from tqdm import tqdm

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEIT3_SETS
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODERS,
    Encoder,
    Encoders,
    Network,
    find_network,
    settings_facts,
)
from alignrec.pipeline.features import names
from alignrec.pipeline.features.batching import ItemContent
from alignrec.pipeline.features.encode import (
    LazyEncoder,
    WriteContext,
    list_modules,
    prepare_set,
    report_quality,
    write_features,
)
from alignrec.pipeline.features.folder import SET, FeatureSet
from alignrec.pipeline.features.kinds import KINDS
from alignrec.pipeline.features.kinds.base import SetRecipe
from alignrec.pipeline.features.params import Combine, without_paths
from alignrec.pipeline.images import fetcher, several
from alignrec.pipeline.images.decode import Decoded, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.io.text import reject_table
from alignrec.pipeline.release import item_file
from alignrec.pipeline.release.encoder import (
    MOST_AT_A_TIME,
    ReleasedEncoders,
    hash_images,
    image_sha256,
    text_sha256,
)
from alignrec.pipeline.release.loading import Project, facts_here, load_encoder, refuse_absent
from alignrec.pipeline.release.recipe import Recipe, project_recipe, release_recipe
from alignrec.pipeline.release.rotated import ROTATION_FILE, rotate_encoder
from alignrec.pipeline.runtime import engine, progress
from alignrec.pipeline.runtime.code import versions
from alignrec.pipeline.runtime.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.run import ALTERED, Run
from alignrec.pipeline.runtime.section import nearest

LABEL = "embed"  # of warnings and progress
TABLE = "table"  # name of the table in paths and seeds
ROWS_PER_CHECKPOINT = 256  # of an interrupted run: a minute at four rows per second
FACTS = "_embed.json"  # readers of Parquet folders ignore names that begin with _
# kind:model, for kinds that load a third-party model
INLINE = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)")
# image columns of rows whose image is not read
UNREAD_IMAGE = {
    "status": "missing",
    "reason": "this encoder reads no image",
    "input_image_sha256": "",
}


class Choice(NamedTuple):
    """An encoder of a release, the parameters or a project, or a combination of encoders."""

    name: str  # name of the feature set
    encode: Encode  # `encoders` are those that it needs
    images: Images  # how images are stored before they are encoded
    encoders: Encoders = {}  # section `encoders`, or more
    sets: Mapping[str, Mapping[str, Any]] = {}  # the combinations that it needs, parts last
    parts: Mapping[str, Sequence[str]] = {}  # combination -> the sets that it is derived from
    seed: int = 0  # of combinations
    project: Project | None = None  # contains the feature set and its encoder
    cache: Path | None = (
        None  # encoded rows of earlier tables, and of the project if it reuses them
    )
    reads: tuple[str, ...] = ()  # modalities of the set of a release or project
    recipe: Recipe | None = None  # how that release or project makes its texts


class Summary(NamedTuple):
    """Row counts of an encoded table."""

    items: int  # written rows
    images: int  # written rows with an image
    texts: int  # written rows with a text
    rejects: Path | str  # table REJECTS, or several in S3, if rows were rejected
    rejected: Counter[str]  # reason -> rows


def choose_released(
    release: Path, name: str, root: Path, engine: Literal["local", "ray"] = "local"
) -> Choice:
    """Find an encoder of a release."""
    shelf = ReleasedEncoders(release)
    facts = shelf.facts(name)
    refuse_absent(release, facts.packages)
    recipe = release_recipe(shelf.manifest)
    batch_size = min(facts.batch_size, MOST_AT_A_TIME)
    return Choice(
        name,
        Encode(engine=engine).model_copy(update={"encoders": [name], "batch_size": batch_size}),
        Images(size=facts.image_size, quality=facts.image_quality, most=recipe.most_images),
        {name: {"kind": "released", "model": str(release), "encoder": name}},
        cache=Layout(root, TABLE).rows,
        reads=tuple(facts.reads),
        recipe=recipe,
    )


def choose_encoder(
    params: Parameters | None, name: str, root: Path, engine: Literal["local", "ray"] = "local"
) -> Choice:
    """Find an encoder by name, kind, `kind:model`, feature set of a project, or combination."""
    encode = (params[Encode] if params else Encode()).model_copy(update={"engine": engine})
    combine = params[Combine] if params else Combine()
    images = params[Images] if params else Images()
    encoders: Encoders = params.encoders if params else {}

    inline = INLINE.fullmatch(name)
    if inline and inline["kind"] in ENCODERS and ENCODERS[inline["kind"]].origin:
        name = "inline"
        encoders = {name: {"kind": inline["kind"], "model": inline["model"]}}
    choice = Choice(name, encode, images, encoders, cache=Layout(root, TABLE).rows)
    if name in encoders or name in ENCODERS:
        return choice._replace(encode=encode.model_copy(update={"encoders": [name]}))

    dataset_of = _list_project_sets(root)
    if name in dataset_of:
        return _choose_project_set(choice, params, Layout(root, dataset_of[name]))
    if name not in combine.sets:
        valid = [*encoders, *ENCODERS, *combine.sets, *dataset_of]
        raise UserError(f"no encoder '{name}'{nearest(name, valid)}")
    return _choose_combination(choice, combine)


def _list_project_sets(root: Path) -> dict[str, str]:
    """Return feature set -> dataset."""
    datasets = {path.name for stage in FEATURE_STAGES for path in (root / stage).glob("*/")}
    dataset_of: dict[str, str] = {}
    for dataset in sorted(datasets):
        dataset_of |= dict.fromkeys(Layout(root, dataset).feature_sets(), dataset)
    return dataset_of


def _choose_project_set(choice: Choice, params: Parameters | None, layout: Layout) -> Choice:
    project = Project(layout)
    facts = project.facts(choice.name)
    sizes = {"size": facts.image_size, "quality": facts.image_quality}
    batch = {"encoders": [], "batch_size": facts.batch_size}
    return choice._replace(
        encode=choice.encode.model_copy(update=batch),
        images=choice.images.model_copy(update=sizes),
        project=project,
        reads=tuple(facts.reads),
        recipe=project_recipe(params, layout.dataset, layout.items) if params else None,
    )


def _choose_combination(choice: Choice, combine: Combine) -> Choice:
    encoders = choice.encode.encoders
    needed = _list_with_parts(choice.name, combine.sets, encoders)
    for name in needed:
        kind = names.kind_of(combine.sets, name)
        needs_interactions = kind is not None and (kind.refit is not None or kind.is_ceiling)
        if name in BEIT3_SETS or needs_interactions:
            remedy = "run `dvc repro`, or name a release by --release"
            raise UserError(f"'{name}' needs more than a table; {remedy}")

    networks = [name for name in needed if name not in combine.sets]
    combined = [name for name in needed if name in combine.sets]
    return choice._replace(
        encode=choice.encode.model_copy(update={"encoders": networks}),
        sets={name: combine.sets[name] for name in combined},
        parts={name: _parts_of(name, combine.sets, encoders) for name in reversed(combined)},
        seed=combine.seed,
    )


def _list_with_parts(name: str, sets: names.Definitions, encoders: Sequence[str]) -> list[str]:
    """Return a set and, recursively, all its parts, which follow it."""
    listed = [name]
    for part in _parts_of(name, sets, encoders):
        listed += _list_with_parts(part, sets, encoders)
    return listed


def _parts_of(name: str, sets: names.Definitions, encoders: Sequence[str]) -> list[str]:
    """Return the sets that a combination is derived from; none come with a table."""
    if name not in sets:
        return []
    parts = names.settings_of(sets, name).parts()
    kind = names.kind_of(sets, name)
    if not parts and kind is not None and kind.takes_all:
        return list(encoders)
    return parts


def embed(
    table: item_file.ItemTable, choice: Choice, to: Path, retry_failed: bool = False
) -> Summary:
    """Encode a table into a folder, schema embedded(F).

    Rows that failed go to `<to>.rejects.parquet`. The folder must be new, or with `retry_failed` an
    earlier output, whose rows of equal content keep their vectors.
    """
    lock = io.next_to(to, "lock")
    _require_writable(to)
    rejects = to.with_name(f"{to.name}.rejects.parquet")
    with FileLock(lock):
        try:
            _refuse_existing(to, rejects, retry_failed)
            return _embed_next_to(to, rejects, table, choice)
        finally:
            lock.unlink(missing_ok=True)


def _require_writable(to: Path) -> None:
    """Raise UserError unless a folder can be made next to `to`, which a lock would wait for."""
    if not to.name:
        raise UserError(f"--to {to}: this is the folder that you are in; name one inside it")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent):
            pass
    except OSError as e:
        fault = f"no folder can be made there ({e.strerror})"
        raise UserError(f"--to {to}: {fault}; name another") from None


def _refuse_existing(to: Path, rejects: Path, retry_failed: bool) -> None:
    is_earlier_output = (to / FACTS).is_file()
    is_free = not to.exists() or (to.is_dir() and not any(to.iterdir()))
    if not is_free and not (retry_failed and is_earlier_output):
        remedy = "name another folder, or delete this one"
        if is_earlier_output:
            remedy += "; --retry-failed encodes what failed or is new"
        raise UserError(f"{to}: exists already; {remedy}")

    if rejects.exists() and not (rejects.is_file() and io.record(rejects).get("stage") == "embed"):
        remedy = "move it, or name another folder"
        raise UserError(f"{rejects}: exists already, and is not of `embed`; {remedy}")


def _embed_next_to(to: Path, rejects: Path, table: item_file.ItemTable, choice: Choice) -> Summary:
    work = io.next_to(to, "parts")
    layout = Layout(work, TABLE)
    networks = find_networks(choice, layout)
    record = _describe(table, choice, networks)
    _resume(work, table, networks, record)

    bars: list[tqdm] = []
    with progress.print_heartbeat(LABEL, bars):
        _lay_out(table, layout, choice, networks, record)
        folder, notes = _write_sets(choice, networks, layout, bars)

    finished = work / "done"
    n_rows, n_images, n_texts = _append_inputs(folder, layout, finished, record, choice, table)
    rejected = _gather_rejects(work / "rejects", rejects, record)
    space = io.fingerprint_of(io.record(io.shard(folder, "features", 0)))
    about = {"items": n_rows, "rejected": rejected, "notes": notes, io.FINGERPRINT: space}
    io.write_json(finished / FACTS, record | about)

    if to.exists():  # an empty folder, or earlier vectors
        to.rename(work / "before")
    finished.rename(to)
    shutil.rmtree(work)

    return Summary(n_rows, n_images, n_texts, rejects, rejected)


def find_networks(choice: Choice, layout: Layout) -> list[Network]:
    listed = choice.encode.encoders
    return [find_network(choice.encoders, name, layout.out("encode", name)) for name in listed]


def _describe(
    table: item_file.ItemTable, choice: Choice, networks: Sequence[Network]
) -> dict[str, Any]:
    """Provenance of the output, for its metadata."""
    if choice.project:
        origin = facts_here(choice.project, choice.name).model_dump()
    else:
        facts = {network.name: settings_facts(network, choice.encode) for network in networks}
        origin = {"encoders": facts, "sets": choice.sets}
    settings = {
        "encoder": choice.name,
        "made": origin,
        "encode": choice.encode.facts(),
        "columns": table.columns._asdict(),
        "images": _describe_images(choice.images, table.most),
    }
    return {"stage": "embed", "params": settings, "versions": versions()}


def _describe_images(images: Images, most: int) -> dict[str, Any]:
    """Return how images are stored and, if an item may have several, how many."""
    recorded = images.model_dump(include={"size", "quality"})
    return recorded if most == 1 else recorded | {"most": most}


def _resume(
    work: Path, table: item_file.ItemTable, networks: Sequence[Network], record: dict[str, Any]
) -> None:
    """Discard unfinished vectors of another table, encoder or image folder."""
    files = sorted(table.path.glob("*.parquet")) if table.path.is_dir() else [table.path]
    modules = [__name__]
    for network in networks:
        modules += list_modules(network)
        files += ENCODERS.source_files(network.kind)
        if network.origin:
            files += network.files()
    images = str(table.images and table.images.absolute())

    io.open_journal(work, Run.key(files, record | {"images": images}, modules))
    for path in io.drop_unlisted(work):
        _warn(f"{path} {ALTERED}")


def _warn(message: str) -> None:
    print(printable(f"warning: {LABEL}: {message}"), file=sys.stderr, flush=True)


def _shard_rows(choice: Choice) -> int:
    return min(ROWS_PER_CHECKPOINT, choice.encode.shard_rows)


def _lay_out(
    table: item_file.ItemTable,
    layout: Layout,
    choice: Choice,
    networks: Sequence[Network],
    record: dict[str, Any],
) -> None:
    """Write the items, images (if encoders read them) and rejects of a table, unless done before.

    Raises UserError if the table has no items.
    """
    if layout.item_ids.is_file():  # written last, as it marks the table as complete
        return

    reads = [*choice.reads] if choice.project else []
    for network in networks:
        reads += network.reads
    images = choice.images if "image" in reads else None
    if images is None:
        table = table._replace(columns=table.columns._replace(image=""))

    rejects = layout.root / "rejects"
    try:
        rows = _read_rows(table, rejects)
        shards = _write_images(rows, layout, images, table.most, _shard_rows(choice), record)
        io.write_tables(shards, layout.items, schemas.ITEMS, record)
        if not io.rows([layout.items]):
            reason = _first_reject(rejects)
            expected = "give Parquet, CSV or JSON lines, an item a row"
            raise UserError(f"{table.path}: 0 items{reason}; {expected}")
    except UserError:
        shutil.rmtree(layout.root)  # nothing to resume
        raise

    items = io.read_tables(layout.items, schemas.ITEMS)
    ids = (part.select(schemas.ITEM_IDS.names) for part in items)
    io.write_tables(ids, layout.item_ids, schemas.ITEM_IDS, record)


def _read_rows(table: item_file.ItemTable, rejects: Path) -> Iterator[item_file.ItemRow]:
    """Yield the items of a table, and write its invalid rows."""
    for number, (rows, rejected) in enumerate(item_file.read_blocks(table)):
        if rejected:
            raw = reject_table(table.path.name, rejected)
            io.write_table(raw, io.shard(rejects, "rejects", number), schemas.REJECTS)
        yield from rows


def _write_images(
    rows: Iterator[item_file.ItemRow],
    layout: Layout,
    images: Images | None,
    most: int,
    shard_rows: int,
    record: dict[str, Any],
) -> Iterator[pa.Table]:
    """Write the images of items, unless `images` is None, and yield tables of the items."""
    schema = schemas.IMAGES if most == 1 else schemas.IMAGES_WITH_MORE
    n_items = 0
    for n_shards, first in enumerate(rows):
        rows_of_shard = chain([first], islice(rows, shard_rows - 1))
        path = io.shard(layout.images, "images", n_shards)
        shard: list[item_file.ItemRow] = []
        if images is not None and not path.is_file():
            # recorded as by stage `images`
            params = _describe_images(images, most)
            decoded = _decode_images(rows_of_shard, n_items, images, most, schema, shard)
            io.write_tables(decoded, path, schema, record | {"params": params})
        else:
            shard += (row.without_images() for row in rows_of_shard)

        items = _item_table(shard, n_items)
        for start in range(0, len(shard), io.PART):
            yield items.slice(start, io.PART)
        n_items += len(shard)


def _first_reject(folder: Path) -> str:
    for path in sorted(folder.glob("*.parquet")):
        rejects = io.read_table(path, schemas.REJECTS)
        return f"; row {rejects['line'][0]}: {rejects['reason'][0]}"
    return ""


def _item_table(rows: Sequence[item_file.ItemRow], start: int) -> pa.Table:
    # lone surrogates cannot be stored
    texts = [row.text.encode(errors="replace").decode() for row in rows]
    columns: dict[str, Sequence[object]] = {
        "item_id": range(start, start + len(rows)),
        "asin": [row.asin.encode(errors="replace").decode() for row in rows],
        "text": texts,
        "text_status": ["ok" if text.strip() else "empty" for text in texts],
        "tokens": [len(text.split()) for text in texts],
        "extra": ["{}"] * len(rows),
        "categories": [[]] * len(rows),
        "image_urls": [[]] * len(rows),
    }
    blank = [""] * len(rows)
    arrays = {
        field.name: pa.array(columns.get(field.name, blank), field.type) for field in schemas.ITEMS
    }
    return pa.table(arrays)


def _decode_images(
    rows: Iterable[item_file.ItemRow],
    start: int,
    params: Images,
    most: int,
    schema: pa.Schema,
    seen: list[item_file.ItemRow],
) -> Iterator[pa.Table]:
    """Yield the images of rows, a block at a time; add the rows to `seen`, without the images.

    `start` is the item id of the first row.
    """

    def decode_file(found: item_file.FoundImage, images: Sequence[Decoded]) -> Decoded:
        if found.image is None:
            return Decoded(found.status, found.reason)
        data = found.read(params.max_bytes)
        if data is None:
            return Decoded("too_large", f"more than {params.max_bytes:,} bytes")
        decoded = normalise_image(data, params.size, params.quality, params.max_pixels)
        return several.mark_duplicate(decoded, images)

    def decode(row: item_file.ItemRow) -> Decoded:
        decoded = several.gather_images(row.images, decode_file, most)
        assert decoded is not None  # a row has at least one image to try
        return decoded

    for block in item_file.cut_blocks(rows):
        decoded = list(engine.in_threads(decode, block))
        plain = [row.without_images() for row in block]
        items = _item_table(plain, start + len(seen))
        seen += plain
        yield fetcher.image_table(items, decoded, schema)


def _write_sets(
    choice: Choice, networks: Sequence[Network], layout: Layout, bars: list[tqdm]
) -> tuple[Path, dict[str, Any]]:
    """Write the chosen set and its parts; return its folder, and notes about encoders."""
    items = ItemContent.of(layout)
    settings = choice.encode.model_copy(update={"shard_rows": _shard_rows(choice)})
    total = len(items.ids) * (max(1, len(networks)) + len(choice.parts))
    notes: dict[str, Any] = {}
    with progress.stage_bar(LABEL, hidden=False, total=total, unit="vector") as bar:
        bars.append(bar)
        context = WriteContext({"stage": "embed"}, _warn, bar.update)
        for folder, encoder in _list_encoders(choice, networks, items, layout, settings):
            write_features(encoder, items, folder, settings, context)
            notes |= report_quality(encoder.facts, folder, _warn)
        for name in choice.parts:
            _combine(name, choice, items, layout, settings, context)
    return layout.features(choice.name), notes


def _list_encoders(
    choice: Choice,
    networks: Sequence[Network],
    items: ItemContent,
    layout: Layout,
    settings: Encode,
) -> Iterator[tuple[Path, LazyEncoder]]:
    """Yield the folder and encoder of each set to encode."""
    if choice.project:
        facts = facts_here(choice.project, choice.name)
        load = partial(load_stored, choice.project, choice.name)
        rows = choice.cache and choice.cache / Run.key([], facts.model_dump(), [__name__])
        yield layout.out("encode", choice.name), LazyEncoder(facts, load, cached_rows=rows)
    for network in networks:
        folder = layout.out("encode", network.name)
        yield folder, prepare_set(network, items, folder, settings, TABLE, choice.cache)


def load_stored(project: Project, name: str) -> Encoder:
    facts, encoder = load_encoder(project, name)
    folder = project.folder(name)
    if not (folder / ROTATION_FILE).is_file():  # in the project's own space
        return encoder
    return rotate_encoder(folder, facts, encoder)


def _combine(
    name: str,
    choice: Choice,
    items: ItemContent,
    layout: Layout,
    settings: Encode,
    context: WriteContext,
) -> None:
    """Write a combination of sets, by a map that is fitted to the table if its kind has one."""
    from alignrec.pipeline.features.combine import make_set  # loads SciPy
    from alignrec.pipeline.release.fitted import read_map

    folder = layout.out("combine", name)
    if (folder / SET).is_file():
        return
    definition = names.definition_of(choice.sets, name)
    recipe = SetRecipe(
        name=name,
        kind=KINDS[str(definition["kind"])],
        definition=without_paths(definition),
        settings=names.settings_of(choice.sets, name),
        parts=[FeatureSet.of(layout, part) for part in choice.parts[name]],
        layout=layout,
        folder=folder,
        ids=items.ids,
        shard_rows=settings.shard_rows,
        batch_size=settings.batch_size,
        seed=choice.seed,
        read_map=read_map,
    )
    make_set(recipe, dict(context.record), context.done)


def _append_inputs(
    folder: Path,
    layout: Layout,
    to: Path,
    record: dict[str, Any],
    choice: Choice,
    table: item_file.ItemTable,
) -> tuple[int, int, int]:
    """Write the vectors with hashes of their inputs; return the numbers of items, images, texts."""
    made_by = io.record(io.shard(folder, "features", 0))
    record = record | {
        "encoder": made_by.get("encoder", {}),
        io.FINGERPRINT: io.fingerprint_of(made_by),
    }
    images = ItemContent.of(layout).images
    has_more = bool(images) and several.schema_of(images[0]) is schemas.IMAGES_WITH_MORE
    schema = schemas.embedded_items(io.width(folder), table.identifier, has_more)
    shard_rows = choice.encode.shard_rows
    n_rows = 0
    n_images = 0
    n_texts = 0
    for number, rows in enumerate(_rechunk(_read_shards(folder, layout, schema), shard_rows)):
        io.write_table(rows, io.shard(to, "features", number), schema, record)
        n_rows += len(rows)
        n_images += pc.sum(rows["has_image"]).as_py() or 0
        n_texts += pc.sum(rows["has_text"]).as_py() or 0
    return n_rows, n_images, n_texts


def _read_shards(folder: Path, layout: Layout, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of each shard of a feature set with hashes of their inputs."""
    items = ItemContent.of(layout)
    feature_schema = schemas.features(io.width(folder))
    start = 0
    for number, path in enumerate(io.shards(folder, "features")):
        rows = io.read_table(path, feature_schema)
        texts = items.texts.slice(start, len(rows)).to_pylist()
        text_hashes = pa.array(map(text_sha256, texts), pa.string())
        more: dict[str, pa.Array] = {}
        if items.images:
            images = hash_images(items.images[number], ["status", "reason"])
            if several.MORE in schema.names:
                kind = schema.field(several.MORE).type
                more = {several.MORE: _describe_further(items.images[number], kind)}
        else:
            images = pa.table({name: [value] * len(rows) for name, value in UNREAD_IMAGE.items()})
        image_hashes = images["input_image_sha256"]

        columns = {
            schema.names[0]: rows["asin"],
            "has_image": rows["has_image"],
            "has_text": rows["has_text"],
            "vector": rows["vector"],
            "image_status": images["status"],
            "image_reason": images["reason"],
            "input_text_sha256": pc.if_else(rows["has_text"], text_hashes, ""),
            "input_image_sha256": pc.if_else(rows["has_image"], image_hashes, ""),
            **more,
        }
        yield pa.table({name: columns[name] for name in schema.names})
        start += len(rows)


def _describe_further(path: Path, kind: pa.DataType) -> pa.Array:
    """Return status, reason and hash of the further images of a file's items."""
    described = []
    rows = io.read_slices(path, schemas.IMAGES_WITH_MORE, [several.MORE], io.PART)
    for row in chain.from_iterable(part[several.MORE] for part in rows):
        fields = []
        for image in row.as_py():
            sha256 = image_sha256(image["image"])
            fields.append(
                {
                    "status": image["status"],
                    "reason": image["reason"],
                    "input_image_sha256": sha256,
                }
            )
        described.append(fields)
    return pa.array(described, kind)


def _rechunk(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables in tables of `rows` rows; the last has the rest."""
    pending: pa.Table | None = None
    for table in tables:
        pending = table if pending is None else pa.concat_tables([pending, table])
        while len(pending) >= rows:
            yield pending.slice(0, rows)
            pending = pending.slice(rows)
    if pending is not None and len(pending):
        yield pending


def _gather_rejects(folder: Path, to: Path, record: dict[str, Any]) -> Counter[str]:
    """Write the rejects of all blocks to one file, if there are any; return reason -> rows."""
    reasons = Counter[str]()
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        to.unlink(missing_ok=True)
        return reasons

    for path in paths:
        for reason in io.read_table(path, schemas.REJECTS)["reason"].to_pylist():
            is_repeated = reason.endswith("occurred before")  # the message names the identifier
            reasons["occurred before" if is_repeated else reason] += 1
    tables = (io.read_table(path, schemas.REJECTS) for path in paths)
    io.write_tables(tables, to, schemas.REJECTS, record)
    return reasons
