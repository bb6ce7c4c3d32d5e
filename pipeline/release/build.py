"""Write a release folder from the outputs of a dataset; outputs of stages that did not run are left out."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.evaluation import evidence
from alignrec.pipeline.features.folder import SET, FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import card, encoder, facts, manifest
from alignrec.pipeline.release.encoder import hash_images, text_sha256
from alignrec.pipeline.release.manifest import Input, ItemColumns, Maker, Manifest
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.release.read import ITEMS
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.verdict import LINEAR, is_below
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import quoted_record
from alignrec.pipeline.runtime.source import Shown
from alignrec.pipeline.sources.base import is_web

BEYOND_TITLES = ("brand", "description", "text", "image_url")
LEFT_OUT: dict[Shown, tuple[str, ...]] = {
    "all": (), "titles": BEYOND_TITLES, "none": ("title", *BEYOND_TITLES)
}  # fmt: skip  # publish.texts -> columns to blank


def write_release(
    folder: Path,
    outputs: Outputs,
    publish: Publish,
    record: Mapping[str, Any],
    warn: Callable[[str], object],
    columns: ItemColumns | None = None,
) -> Manifest:
    """Write a release into an empty folder; UserError if there are no items or no feature set to release.

    `publish` comes from `resolve_settings`, `columns` from `record_columns`; `record` has the stage,
    parameters and versions of this run.
    """
    layout, asked = outputs.layout, _available_sets(outputs.layout, publish)
    empty = [name for name in asked if _is_zero(layout, name)]
    if empty == asked:
        raise UserError(
            "publish.features: every vector of each set is zero; check the texts and images of the items"
        )
    for name in empty:
        warn(f"{name}: every vector is zero; it is left out of the release")
    names = _order_sets(outputs, [name for name in asked if name not in empty])

    tables = _write_tables(folder, layout, publish, names, record)
    encoders = select_encoders(layout, names)
    used_by = _copy_encoders(folder / encoder.FOLDER, encoders)
    _write_evidence(folder, outputs)
    files = [
        manifest.describe_file(folder, p, tables.get(p), used_by.get(p, ()))
        for p in io.files_below(folder)
    ]
    upstream = [
        path for path in (layout.interactions, layout.items, layout.results) if path.exists()
    ]
    inputs = [
        Input(**{k: row[k] for k in ("name", "bytes", "sha256")})
        for row in io.read_json(layout.sources)
    ]
    made_by = _find_makers([*tables, *upstream], outputs)
    stated = facts.gather_facts(
        folder / ITEMS, outputs, publish, names, empty, files, inputs, made_by
    )
    # each of croissant.json, card and manifest lists all files written before it
    io.write_json(folder / card.CROISSANT, card.make_croissant(stated, files))
    files.append(manifest.describe_file(folder, folder / card.CROISSANT))
    index = folder / "embeddings/index.json"
    text = card.render_card(
        outputs, stated, files, encoders, io.read_json(index) if index.exists() else None
    )
    io.write_bytes(folder / "README.md", text.encode())
    files.append(manifest.describe_file(folder, folder / "README.md"))
    trained = [
        layout.encoder.weights,
        layout.encoder.tokenizer,
        layout.encoder.whitening,
        layout.model,
    ]
    written = Manifest(
        format=manifest.FORMAT,
        dataset=stated.dataset,
        version=publish.version,
        kind=outputs.kind,
        counts=stated.counts,
        files=sorted(files, key=lambda f: f.path),
        inputs=inputs,
        weights=[
            Input(name=p.name, bytes=p.stat().st_size, sha256=io.sha256(p))
            for p in trained
            if p.exists()
        ],
        encoders=dict(stated.networks),
        columns=columns,
        made_by=dict(stated.made_by),
        code=code.fingerprint("alignrec.stages.publish"),
    )
    manifest.write(folder / manifest.NAME, written)
    return written


def _available_sets(layout: Layout, publish: Publish) -> list[str]:
    wanted, encoded = publish.features, layout.feature_sets()
    names = [name for name in wanted if name in encoded]
    if not names:
        there = (
            ", ".join(encoded) or f"no feature sets: run `alignrec encode {layout.dataset}` first"
        )
        asked = f"publish.features ({', '.join(wanted)})"
        raise UserError(f"{asked}: none has been encoded for {layout.dataset}; there are {there}")
    return names


def _is_zero(layout: Layout, name: str) -> bool:
    return not any(vectors.any() for vectors in FeatureSet.of(layout, name).vectors())


def _order_sets(outputs: Outputs, names: list[str]) -> list[str]:
    # the first set leads the card and is the default config of `datasets.load_dataset`
    if LINEAR in names and is_below(outputs.released, LINEAR, outputs.probes, outputs.tests):
        names = [LINEAR, *(name for name in names if name != LINEAR)]
    return names


def _write_tables(
    folder: Path, layout: Layout, publish: Publish, names: Sequence[str], record: Mapping[str, Any]
) -> dict[Path, str]:
    """Write or copy all tables; return path -> kind of table."""
    io.write_tables(
        _read_items(layout, publish), folder / ITEMS, schemas.RELEASED_ITEMS, dict(record)
    )
    tables = {folder / ITEMS: "items"}
    if publish.interactions:
        for name, source, schema in (
            ("interactions", layout.interactions, schemas.INTERACTIONS), ("users", layout.users, schemas.USERS)
        ):  # fmt: skip
            parts = io.read_tables(source, schema)
            if name == "users" and publish.users != "names":
                at = schema.get_field_index("user")
                parts = (
                    part.set_column(at, schema.field(at), part["user_id"].cast(pa.string()))
                    for part in parts
                )
            io.write_tables(parts, folder / f"{name}.parquet", schema, io.record(source) or None)
            tables[folder / f"{name}.parquet"] = name
    for name in names:
        for path in io.shards(layout.features(name), "features"):
            tables |= _copy_table(path, folder / f"features/{name}/{path.name}", "features")
        tables |= _copy_table(layout.edges(name), folder / f"graph/{name}/edges.parquet", "edges")
        tables |= _copy_table(
            layout.codes(name), folder / f"semantic_ids/{name}/codes.parquet", "semantic_ids"
        )
    tables |= _copy_table(
        layout.item_embeddings, folder / "embeddings/items.parquet", "item_embeddings"
    )
    source, target = layout.user_embeddings, folder / "embeddings/users.parquet"
    if publish.users == "names":
        tables |= _copy_table(source, target, "user_embeddings")
    # a vector reveals much of a user's history, so it is published with a name only if the publisher opts in
    elif publish.users == "numbers" and source.exists():
        width = int(pq.read_schema(source).field("vector").type.list_size)
        own = schemas.numbered_user_embeddings(width)
        vectors = io.read_slices(source, schemas.user_embeddings(width), own.names, io.PART)
        io.write_tables(vectors, target, own, io.record(source) or None)
        tables[target] = "numbered_user_embeddings"
    return tables


def _copy_table(source: Path, target: Path, table: str) -> dict[Path, str]:
    if not source.exists():  # the stage did not run
        return {}
    _copy_file(source, target)
    return {target: table}


def _write_evidence(folder: Path, outputs: Outputs) -> None:
    for path in (outputs.layout.items_index, outputs.layout.index_facts):
        if path.exists():
            _copy_file(path, folder / "embeddings" / path.name)
    if outputs.results is not None:
        io.write_json(folder / "results.json", evidence.as_json(outputs.results, outputs.protocols))
    if outputs.probes is not None:
        io.write_json(folder / "probes.json", outputs.probes)
    if outputs.study:
        io.write_json(
            folder / "study.json",
            {part: table.to_pylist() for part, table in outputs.study.items()},
        )


def _read_items(layout: Layout, publish: Publish) -> Iterator[pa.Table]:
    if not any(layout.images.glob("images-*.parquet")):
        yield from (
            _release_items(items, None, publish)
            for items in io.read_tables(layout.items, schemas.ITEMS)
        )
        return
    first = 0
    for path in io.shards(layout.images, "images"):
        images = hash_images(path, ["status", "url", "sha256", "phash"])
        items = io.read_rows(layout.items, schemas.ITEMS, schemas.ITEMS.names, first, len(images))
        first += len(images)
        yield _release_items(items, images, publish)


def _release_items(items: pa.Table, images: pa.Table | None, publish: Publish) -> pa.Table:
    """Return n items in schema RELEASED_ITEMS, with LEFT_OUT columns blanked; `images`: None if none were fetched."""
    n = len(items)
    blank = pa.array([""] * n, pa.string())
    if images is None:
        addresses = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()]
        columns = dict.fromkeys(("sha256", "input_image_sha256"), blank)
        nulls = {"status": pa.nulls(n, pa.string()), "phash": pa.nulls(n, pa.uint64())}
        images = pa.table(columns | nulls | {"url": pa.array(addresses, pa.string())})
    derived = {f"image_{name}": images[name] for name in ("status", "sha256", "phash")}
    derived |= {
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array(
            [a if is_web(a) else "" for a in images["url"].to_pylist()], pa.string()
        ),
        "input_text_sha256": pa.array(map(text_sha256, items["text"].to_pylist()), pa.string()),
    }
    derived |= dict.fromkeys(LEFT_OUT[publish.texts or "all"], blank)
    if publish.texts == "none":
        derived["categories"] = pa.array([[]] * n, schemas.RELEASED_ITEMS.field("categories").type)
    names = schemas.RELEASED_ITEMS.names
    return pa.table({name: derived[name] if name in derived else items[name] for name in names})


def select_encoders(layout: Layout, names: Sequence[str]) -> dict[str, FeatureSet]:
    """Select the encoders to release: those of `names` with all dependencies, unless one is a third-party model."""
    released: dict[str, FeatureSet] = {}
    for name in names:
        needed = _with_dependencies(layout, name)
        # weights that a package ships have no origin and do not count as third-party weights
        specs = (ENCODERS.get(one.facts.network) for one in needed)
        if all(one.facts.portable for one in needed) and all(
            spec is None or spec.origin is None for spec in specs
        ):
            released |= {one.name: one for one in needed}
    return released


def _with_dependencies(layout: Layout, name: str) -> list[FeatureSet]:
    own = FeatureSet.of(layout, name)
    weights = [own.facts.weights] if own.facts.weights not in (None, name) else []
    needed = [*own.facts.parts, *filter(None, weights)]
    return [*(one for other in needed for one in _with_dependencies(layout, other)), own]


def _copy_file(source: Path, target: Path) -> None:
    with io.atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def _copy_encoders(above: Path, encoders: Mapping[str, FeatureSet]) -> dict[Path, list[str]]:
    used_by: dict[Path, list[str]] = {}
    for name, one in encoders.items():
        _copy_file(one.folder / SET, above / name / encoder.NAME)
        for path in io.files_below(one.encoder):
            _copy_file(path, above / name / path.relative_to(one.encoder))
        used_by |= {path: [name] for path in io.files_below(above / name)}
    # sets can share weights, stored in the folder of one of them, so fetching a set may need files of another
    for name, one in encoders.items():
        needed = [path for part in one.facts.parts for path in io.files_below(above / part)]
        weights = io.files_below(above / one.facts.weights) if one.facts.weights else []
        for path in [*needed, *(path for path in weights if path.name != encoder.NAME)]:
            used_by[path] += [name] * (name not in used_by[path])
    return used_by


def _find_makers(paths: list[Path], outputs: Outputs) -> dict[str, Maker]:
    """Return stage -> Maker of its outputs, from the records of all stages that ran and of the tables."""
    found: dict[str, Maker] = {}
    layout = outputs.layout
    # stages with a matrix, such as encode, have a record per item
    items = [
        (stage, path.parent.name)
        for stage in outputs.stages
        for path in layout.out(stage).glob(f"*/{io.RECORD}")
    ]
    of_items = [quoted_record(layout, *item) for item in items]
    for record in (*of_items, *outputs.records.values(), *map(io.record, paths)):
        if record:
            source = code.fingerprint(f"alignrec.stages.{record['stage']}")
            found[record["stage"]] = Maker(
                params=record["params"], versions=record["versions"], code=source
            )
    return dict(sorted(found.items()))
