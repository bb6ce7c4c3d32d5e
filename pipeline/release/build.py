"""Write a release folder from those outputs of a dataset whose stages ran."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation import evidence
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import catalogue, encoder
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.card import render_card
from alignrec.pipeline.release.croissant import CROISSANT, make_croissant
from alignrec.pipeline.release.encoder import hash_images, text_sha256
from alignrec.pipeline.release.facts import ReleaseFacts, gather_facts
from alignrec.pipeline.release.manifest import (
    File,
    Input,
    ItemColumns,
    Maker,
    Manifest,
    describe_file,
)
from alignrec.pipeline.release.params import Publish, VectorType
from alignrec.pipeline.release.read import ITEMS_FILE, codebooks_path
from alignrec.pipeline.release.shipped import copy_encoders, find_users, select_encoders
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import quoted_record
from alignrec.pipeline.runtime.source import Shown
from alignrec.pipeline.sources.base import is_web

README = "README.md"
INDEX_FACTS = "embeddings/index.json"
BEYOND_TITLES = ("brand", "description", "text", "image_url")
BLANKED_COLUMNS: dict[Shown, tuple[str, ...]] = {  # by publish.texts
    "all": (),
    "titles": BEYOND_TITLES,
    "none": ("title", *BEYOND_TITLES),
}

TableKinds = Iterator[tuple[Path, str]]  # each table that was written, and its kind


def write_release(
    folder: Path,
    outputs: Outputs,
    publish: Publish,
    record: Mapping[str, Any],
    warn: Callable[[str], object],
    columns: ItemColumns | None = None,
) -> Manifest:
    """Write a release into an empty folder; UserError without items or a feature set to release.

    `publish` comes from `resolve_settings`, `columns` from `record_columns`; `record` has the
    stage, parameters and versions of this run.
    """
    layout = outputs.layout
    names, empty = _select_sets(layout, publish)
    for name in empty:
        warn(f"{name}: every vector is zero; it is left out of the release")
    catalogue.refuse_uncovered(layout, names)

    tables = dict(_write_tables(folder, layout, publish, names, record))
    encoders = select_encoders(layout, names)
    copy_encoders(folder / encoder.ENCODERS_FOLDER, encoders)
    _write_evidence(folder, outputs)

    files = _describe_files(folder, tables, encoders)
    inputs = _list_inputs(layout)
    made_by = _find_makers([*tables, layout.interactions, layout.items, layout.results], outputs)
    facts = gather_facts(
        folder / ITEMS_FILE, outputs, publish, names, empty, files, inputs, made_by
    )
    _write_card(folder, outputs, facts, files, encoders)

    manifest = Manifest(
        format=manifests.FORMAT,
        dataset=facts.dataset,
        version=publish.version,
        kind=outputs.kind,
        counts=facts.counts,
        files=sorted(files, key=lambda file: file.path),
        inputs=inputs,
        weights=_list_weights(layout),
        encoders=dict(facts.networks),
        columns=columns,
        made_by=dict(made_by),
        code=code.fingerprint("alignrec.stages.publish"),
    )
    manifests.write(folder / manifests.MANIFEST_FILE, manifest)
    return manifest


def _describe_files(
    folder: Path, tables: Mapping[Path, str], encoders: Mapping[str, FeatureSet]
) -> list[File]:
    used_by = find_users(folder / encoder.ENCODERS_FOLDER, encoders)
    return [
        describe_file(folder, path, tables.get(path), used_by.get(path, ()))
        for path in io.files_below(folder)
    ]


def _write_card(
    folder: Path,
    outputs: Outputs,
    facts: ReleaseFacts,
    files: list[File],
    encoders: Mapping[str, FeatureSet],
) -> None:
    """Write croissant.json and the card, and add them to `files`: each lists all before it."""
    io.write_json(folder / CROISSANT, make_croissant(facts, files))
    files.append(describe_file(folder, folder / CROISSANT))
    index = read_json(folder / INDEX_FACTS, None)
    card = render_card(outputs, facts, files, encoders, index)
    io.write_bytes(folder / README, card.encode())
    files.append(describe_file(folder, folder / README))


def _select_sets(layout: Layout, publish: Publish) -> tuple[list[str], list[str]]:
    """Return the sets to release, in order, and those that are left out as they are all zeros."""
    available = _available_sets(layout, publish)
    empty = [name for name in available if _is_zero(layout, name)]
    names = [name for name in available if name not in empty]
    if not names:
        raise UserError(
            "publish.features: every vector of each set is zero; check the texts and images of "
            "the items"
        )
    return names, empty


def _available_sets(layout: Layout, publish: Publish) -> list[str]:
    encoded = layout.feature_sets()
    names = [name for name in publish.features if name in encoded]
    if not names:
        dataset = layout.dataset
        listed = ", ".join(encoded) or f"no feature sets: run `alignrec encode {dataset}` first"
        requested = ", ".join(publish.features)
        raise UserError(
            f"publish.features ({requested}): none has been encoded for {dataset}; "
            f"there are {listed}"
        )
    return names


def _is_zero(layout: Layout, name: str) -> bool:
    parts = io.read_vectors(layout.features(name), io.PART)
    return not any(vectors.any() for vectors in parts)


def _list_inputs(layout: Layout) -> list[Input]:
    rows = io.read_json(layout.sources)
    return [Input(name=row["name"], bytes=row["bytes"], sha256=row["sha256"]) for row in rows]


def _list_weights(layout: Layout) -> list[Input]:
    stored = layout.encoder
    paths = [stored.weights, stored.tokenizer, stored.whitening, layout.model]
    return [
        Input(name=path.name, bytes=path.stat().st_size, sha256=io.sha256(path))
        for path in paths
        if path.exists()
    ]


def _write_tables(
    folder: Path,
    layout: Layout,
    publish: Publish,
    names: Sequence[str],
    record: Mapping[str, Any],
) -> TableKinds:
    items = _read_items(layout, publish)
    io.write_tables(items, folder / ITEMS_FILE, schemas.RELEASED_ITEMS, dict(record))
    yield folder / ITEMS_FILE, "items"

    if publish.interactions:
        yield from _write_interactions(folder, layout, publish)
    for name in names:
        yield from _copy_feature_set(folder, layout, name, publish.vectors)
    embeddings = folder / "embeddings"
    yield from _copy_table(layout.item_embeddings, embeddings / "items.parquet", "item_embeddings")
    yield from _write_user_embeddings(embeddings / "users.parquet", layout, publish)


def _read_items(layout: Layout, publish: Publish) -> Iterator[pa.Table]:
    for table, images in catalogue.list_items(layout):
        if not images:
            for items in io.read_tables(table, schemas.ITEMS):
                yield _release_items(items, _without_images(items), publish)

        first = 0
        for path in images:
            hashed = hash_images(path, ["status", "url", "sha256"])
            n = len(hashed)
            items = io.read_rows(table, schemas.ITEMS, schemas.ITEMS.names, first, n)
            first += n
            yield _release_items(items, hashed, publish)


def _without_images(items: pa.Table) -> pa.Table:
    """Return the columns of `hash_images` for items whose images were not fetched."""
    n = len(items)
    blank = pa.array([""] * n, pa.string())
    urls = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()]
    return pa.table(
        {
            "status": pa.nulls(n, pa.string()),
            "url": pa.array(urls, pa.string()),
            "sha256": blank,
            "input_image_sha256": blank,
        }
    )


def _release_items(items: pa.Table, images: pa.Table, publish: Publish) -> pa.Table:
    """Return n items in schema RELEASED_ITEMS, with BLANKED_COLUMNS blank."""
    urls = [url if is_web(url) else "" for url in images["url"].to_pylist()]
    text_hashes = pa.array(map(text_sha256, items["text"].to_pylist()), pa.string())
    columns = {name: items[name] for name in items.column_names}
    columns |= {
        "image_status": images["status"],
        "image_sha256": images["sha256"],
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array(urls, pa.string()),
        "input_text_sha256": text_hashes,
    }

    n = len(items)
    blank = pa.array([""] * n, pa.string())
    columns |= dict.fromkeys(BLANKED_COLUMNS[publish.texts or "all"], blank)
    if publish.texts == "none":
        kind = schemas.RELEASED_ITEMS.field("categories").type
        columns["categories"] = pa.array([[]] * n, kind)
    return pa.table({name: columns[name] for name in schemas.RELEASED_ITEMS.names})


def _write_interactions(folder: Path, layout: Layout, publish: Publish) -> TableKinds:
    yield from _copy_table(layout.interactions, folder / "interactions.parquet", "interactions")
    target = folder / "users.parquet"
    if publish.users == "names":
        yield from _copy_table(layout.users, target, "users")
    else:
        users = io.read_tables(layout.users, schemas.USERS)
        numbered = (
            io.set_column(part, "user", part["user_id"].cast(pa.string())) for part in users
        )
        _write_changed(layout.users, target, schemas.USERS, numbered)
        yield target, "users"


def _copy_feature_set(folder: Path, layout: Layout, name: str, stored: VectorType) -> TableKinds:
    for number, path in enumerate(catalogue.list_feature_files(layout, name)):
        target = io.shard(folder / "features" / name, "features", number)
        if stored == "float16":
            _round_vectors(path, target, name)
            yield target, "features"
        else:
            yield from _copy_table(path, target, "features")
    edges = folder / "graph" / name / "edges.parquet"
    yield from _copy_table(catalogue.find_edges(layout, name), edges, "edges")
    codes = folder / "semantic_ids" / name / "codes.parquet"
    yield from _copy_table(catalogue.find_codes(layout, name), codes, "semantic_ids")
    if layout.codebooks(name).exists():
        io.copy_file(layout.codebooks(name), folder / codebooks_path(name))


def _round_vectors(source: Path, target: Path, name: str) -> None:
    """Write a file of a feature set with its vectors in float16; UserError if they do not fit."""
    schema = schemas.features(io.width(source.parent))
    parts = io.read_slices(source, schema, schema.names, io.PART)
    try:
        rounded = map(io.round_vectors, parts)
        _write_changed(source, target, schemas.store_as(schema, "float16"), rounded)
    except ValueError as e:
        raise UserError(f"'publish.vectors': {name}: {e}; choose float32") from None


def _write_user_embeddings(target: Path, layout: Layout, publish: Publish) -> TableKinds:
    source = layout.user_embeddings
    if publish.users == "names":
        yield from _copy_table(source, target, "user_embeddings")
    # a vector reveals much of a user's history: its name is published only if the publisher opts in
    elif publish.users == "numbers" and source.exists():
        width = int(pq.read_schema(source).field("vector").type.list_size)
        schema = schemas.numbered_user_embeddings(width)
        vectors = io.read_slices(source, schemas.user_embeddings(width), schema.names, io.PART)
        _write_changed(source, target, schema, vectors)
        yield target, "numbered_user_embeddings"


def _write_changed(
    source: Path, target: Path, schema: pa.Schema, parts: Iterable[pa.Table]
) -> None:
    """Write changed rows of a table with its record, which imported files lack."""
    io.write_tables(parts, target, schema, io.record(source) or None)


def _copy_table(source: Path, target: Path, kind: str) -> TableKinds:
    if source.exists():  # otherwise the stage did not run
        io.copy_file(source, target)
        yield target, kind


def _write_evidence(folder: Path, outputs: Outputs) -> None:
    for path in (outputs.layout.items_index, outputs.layout.index_facts):
        if path.exists():
            io.copy_file(path, folder / "embeddings" / path.name)

    if outputs.results is not None:
        results = evidence.as_json(outputs.results, outputs.protocols, outputs.tuning)
        io.write_json(folder / "results.json", results)
    if outputs.probes is not None:
        io.write_json(folder / "probes.json", outputs.probes)
    if outputs.study:
        study = {part: table.to_pylist() for part, table in outputs.study.items()}
        io.write_json(folder / "study.json", study)


def _find_makers(paths: Sequence[Path], outputs: Outputs) -> dict[str, Maker]:
    """Return stage -> Maker, from the records of all stages that ran and of the tables."""
    records: list[Mapping[str, Any]] = []
    for stage in outputs.stages:
        # stages with a matrix, such as encode, have a record per item
        item_records = outputs.layout.out(stage).glob(f"*/{io.RECORD}")
        records += [quoted_record(outputs.layout, stage, path.parent.name) for path in item_records]
    records += outputs.records.values()
    records += [io.record(path) for path in paths if path.exists()]

    makers: dict[str, Maker] = {}
    for record in filter(None, records):
        makers[record["stage"]] = Maker(
            params=record["params"],
            versions=record["versions"],
            code=code.fingerprint(f"alignrec.stages.{record['stage']}"),
        )
    return dict(sorted(makers.items()))
