"""Writes a release folder."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode.folder import SET, FeatureSet
from alignrec.pipeline.harness import code
from alignrec.pipeline.release import card, croissant, encoder, manifest, statement
from alignrec.pipeline.release.gather import Parts
from alignrec.pipeline.release.manifest import Counts, File, Maker, Manifest
from alignrec.pipeline.release.statement import Statement
from alignrec.pipeline.report import content
from alignrec.pipeline.sources.base import SOURCES

ITEMS = "items.parquet"


def write(folder: Path, parts: Parts, record: Mapping[str, Any]) -> Manifest:
    """Fill an empty folder with a release; `record` has stage, params and versions of this run."""
    tables = _write_tables(folder, parts, record)
    used_by = _copy_encoders(folder / encoder.FOLDER, parts.encoders)
    states = content.states(_read_parts(folder / ITEMS, schemas.RELEASED_ITEMS, "image_status", "text_status"))
    files = [manifest.describe(folder, p, tables.get(p), used_by.get(p, ())) for p in _files(folder)]
    said = _state(parts, states, files, _makers([*tables, *parts.upstream]))
    io.write_json(folder / croissant.NAME, croissant.describe(said, files))
    files.append(manifest.describe(folder, folder / croissant.NAME))
    io.write_bytes(folder / "README.md", card.render(parts, said, states, files).encode())
    files.append(manifest.describe(folder, folder / "README.md"))
    written = Manifest(
        format=manifest.FORMAT,
        dataset=said.dataset,
        version=parts.publish.version,
        kind=parts.outputs.kind,
        counts=said.counts,
        files=sorted(files, key=lambda f: f.path),
        inputs=parts.inputs,
        weights=parts.weights,
        encoders=dict(said.networks),
        made_by=dict(said.made_by),
        code=code.fingerprint("alignrec.stages.publish"),
    )
    manifest.write(folder / manifest.NAME, written)
    return written


def _state(parts: Parts, states: content.States, files: list[File], made_by: dict[str, Maker]) -> Statement:
    outputs, layout = parts.outputs, parts.outputs.layout
    users, interactions = (io.rows([path]) for path in (layout.users, layout.interactions))
    counts = Counts(users=users, items=states.total(), interactions=interactions)
    divided = _read_parts(layout.interactions, schemas.INTERACTIONS, "item_id", "split")
    return Statement(
        publish=parts.publish,
        licence=SOURCES[outputs.kind].licence,
        dataset=layout.dataset,
        counts=counts,
        lacking=content.incomplete(states),
        head=statement.popular_share(divided, counts.items),
        learned=[name for name in (outputs.probes or {}).get("learned", ()) if name in parts.features],
        networks=statement.networks(parts.features),
        tables={file.table for file in files},
        inputs=parts.inputs,
        made_by=made_by,
    )


def _write_tables(folder: Path, parts: Parts, record: Mapping[str, Any]) -> dict[Path, str]:
    """Write items, interactions and pieces; return the kind of table of each Parquet file."""
    io.write_tables(parts.items, folder / ITEMS, schemas.RELEASED_ITEMS, dict(record))
    tables, publish, layout = {folder / ITEMS: "items"}, parts.publish, parts.outputs.layout
    if publish.interactions:
        read = io.read_tables(layout.interactions, schemas.INTERACTIONS)
        _write(folder / "interactions.parquet", read, schemas.INTERACTIONS, layout.interactions)
        users = io.read_tables(layout.users, schemas.USERS)
        users = users if publish.users == "names" else map(_number_users, users)
        _write(folder / "users.parquet", users, schemas.USERS, layout.users)
        tables |= {folder / f"{name}.parquet": name for name in ("interactions", "users")}
    for piece in parts.pieces:
        target, source, table = folder / piece.to, piece.source, piece.table
        if callable(source):
            with io.atomic(target) as temporary:
                source(temporary)
        elif not isinstance(source, Path):
            io.write_json(target, source)
        elif table == "user_embeddings" and publish.users != "names":
            width = int(pq.read_schema(source).field("vector").type.list_size)
            table, own = "numbered_user_embeddings", schemas.numbered_user_embeddings(width)
            _write(target, _read_parts(source, schemas.user_embeddings(width), *own.names), own, source)
        else:
            _copy(source, target)
        tables |= {target: table} if table else {}
    return tables


def _write(target: Path, tables: Iterator[pa.Table], schema: pa.Schema, source: Path) -> None:
    io.write_tables(tables, target, schema, io.record(source) or None)


def _copy_encoders(above: Path, encoders: Mapping[str, FeatureSet]) -> dict[Path, list[str]]:
    """Copy the encoders; return the feature sets that need each file."""
    used_by: dict[Path, list[str]] = {}
    for name, one in encoders.items():
        _copy(one.folder / SET, above / name / encoder.NAME)
        for path in _files(one.encoder):
            _copy(path, above / name / path.relative_to(one.encoder))
        used_by |= {path: [name] for path in _files(above / name)}
    for name, one in encoders.items():
        needed = [path for part in one.facts.parts for path in _files(above / part)]
        weights = _files(above / one.facts.weights) if one.facts.weights else []
        for path in [*needed, *(path for path in weights if path.name != encoder.NAME)]:
            used_by[path] += [name] * (name not in used_by[path])
    return used_by


def _makers(paths: list[Path]) -> dict[str, Maker]:
    by_stage: dict[str, Maker] = {}
    for path in paths:
        if record := io.record(path):
            source = code.fingerprint(f"alignrec.stages.{record['stage']}")
            by_stage[record["stage"]] = Maker(params=record["params"], versions=record["versions"], code=source)
    return dict(sorted(by_stage.items()))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def _number_users(users: pa.Table) -> pa.Table:
    number = users["user_id"].cast(pa.string())
    return users.set_column(users.column_names.index("user"), users.schema.field("user"), number)


def _read_parts(path: Path, schema: pa.Schema, *columns: str) -> Iterator[pa.Table]:
    return io.read_slices(path, schema, [*columns], io.PART)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
