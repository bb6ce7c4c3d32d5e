"""Builds a release folder beside the old one, and swaps it in once it is checked."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import code, io
from pipeline.config.parameters import Shown
from pipeline.facts import content
from pipeline.layout import EncoderFiles
from pipeline.release import card, croissant, encoder, manifest, statement
from pipeline.release.manifest import Counts, File, Maker, Manifest
from pipeline.release.parts import Parts, networks
from pipeline.release.statement import Statement
from pipeline.sources.product import is_web
from pipeline.sources.registry import SOURCES

ITEMS = "items.parquet"
BEYOND_TITLES = ("brand", "description", "text", "image_url")
LEFT_OUT: dict[Shown, tuple[str, ...]] = {
    "all": (), "titles": BEYOND_TITLES, "none": ("title", "categories", *BEYOND_TITLES)
}  # fmt: skip
"""`publish.texts` -> columns that say nothing"""


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; when the block ends without an error it replaces `folder`."""
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write(folder: Path, parts: Parts, record: Mapping[str, Any]) -> Manifest:
    """Fill an empty folder with a release; `record` has stage, params and versions of this run."""
    tables = _tables(folder, parts, record)
    outputs, name = parts.outputs, parts.outputs.layout.dataset
    used_by = _encoders(folder, parts.encoders)
    items = io.read_table(folder / ITEMS, schemas.RELEASED_ITEMS, ["image_status", "text_status"])
    counts = Counts(users=len(parts.users), items=len(items), interactions=len(parts.interactions))
    described = [manifest.describe(folder, p, tables.get(p), used_by.get(p, ())) for p in _files(folder)]
    made_by = makers([*tables, *parts.upstream])
    said = _statement(parts, items, counts, described, [*made_by])
    io.write_json(folder / croissant.NAME, croissant.describe(said, described))
    described.append(manifest.describe(folder, folder / croissant.NAME, None))
    io.write_bytes(folder / "README.md", card.render(parts, said, items, counts, described).encode())
    written = Manifest(
        format=manifest.FORMAT,
        dataset=name,
        version=parts.publish.version,
        kind=outputs.kind,
        counts=counts,
        files=sorted([*described, manifest.describe(folder, folder / "README.md", None)], key=lambda f: f.path),
        inputs=parts.inputs,
        weights=parts.weights,
        encoders=networks(parts.features),
        made_by=made_by,
        code=code.fingerprint("stages.publish"),
    )
    manifest.write(folder / manifest.NAME, written)
    return written


def _statement(parts: Parts, items: pa.Table, counts: Counts, files: list[File], stages: list[str]) -> Statement:
    """Return what the release states about itself; `items` has statuses, `files` are those of the release so far."""
    outputs = parts.outputs
    facts = statement.Facts(
        dataset=outputs.layout.dataset,
        kind=outputs.kind,
        counts=counts,
        features=list(parts.features),
        lacking=content.incomplete(items),
        head=statement.popular(parts.interactions, counts.items, schemas.TRAIN),
        learned=[name for name in (outputs.probes or {}).get("learned", ()) if name in parts.features],
        networks=networks(parts.features),
        users=card.users({f.table for f in files}),
        inputs=parts.inputs,
        stages=stages,
        texts=parts.texts,
    )
    return statement.state(parts.publish, SOURCES[outputs.kind].licence, facts)


def _tables(folder: Path, parts: Parts, record: Mapping[str, Any]) -> dict[Path, str]:
    """Write items, interactions and pieces; return which kind of table each Parquet file is."""
    io.write_tables(parts.items, folder / ITEMS, schemas.RELEASED_ITEMS, dict(record))
    tables: dict[Path, str] = {folder / ITEMS: "items"}
    if parts.with_interactions:
        users = parts.users if parts.named_users else _numbered(parts.users)
        for name, rows in (("interactions", parts.interactions), ("users", users)):
            path = folder / f"{name}.parquet"
            # of a protocol that needs content: without its record readers would not know what the split is
            made = schemas.provenance(rows) if schemas.division(rows) else None
            io.write_table(rows, path, manifest.TABLES[name](0), made)
            tables[path] = name
    for to, source, table in parts.pieces:
        if table == "user_embeddings" and isinstance(source, Path) and not parts.named_users:
            tables[_unnamed(source, folder / to)] = f"numbered_{table}"
            continue
        _put(source, folder / to)
        if table:
            tables[folder / to] = table
        if table == "features" and isinstance(source, Path) and parts.half:
            tables[_halved(source, folder / to.replace("features", "features-half", 1))] = "features_half"
    return tables


def _put(source: Path | bytes | Mapping[str, Any], target: Path) -> None:
    """Write a piece of a release."""
    if isinstance(source, Path):
        _copied(source, target)
    elif isinstance(source, bytes):
        io.write_bytes(target, source)
    else:
        io.write_json(target, source)


def _encoders(folder: Path, encoders: Mapping[str, encoder.ReleasedEncoder]) -> dict[Path, list[str]]:
    """Write encoders/<feature set>/; return which encoders need each file."""
    used_by: dict[Path, list[str]] = {}
    for name, released in encoders.items():
        own = folder / encoder.FOLDER / name
        io.write_json(own / encoder.NAME, released.facts.model_dump())
        for source in released.files:
            _copied(source, own / source.name)
        if released.write is not None:
            released.write(own)
        used_by |= {path: [name] for path in _files(own)}
    for name, released in encoders.items():
        for part in released.facts.parts or [name]:
            above, weights = folder / encoder.FOLDER, encoders[part].facts.weights
            needed = [*_files(above / part)] if part != name else []
            needed += EncoderFiles(above / weights).present() if weights not in (None, part) else []
            for path in needed:
                used_by[path] += [name] * (name not in used_by[path])
    return used_by


def released_items(items: pa.Table, images: pa.Table | None, texts: Shown = "all") -> pa.Table:
    """Return schema RELEASED_ITEMS of n items: public image addresses and hashes are kept, image bytes never.

    `images` has item_id, status, url, sha256, phash and input_image_sha256 of the same items; None: none fetched. What
    `texts` leaves out is empty.
    """
    n = len(items)
    if images is None:
        addresses, blank = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()], [""] * n
        images = pa.table(
            {
                "status": pa.nulls(n, pa.string()),
                "sha256": pa.array(blank, pa.string()),
                "phash": pa.nulls(n, pa.uint64()),
                "input_image_sha256": pa.array(blank, pa.string()),
                "url": pa.array(addresses, pa.string()),
            }
        )
    derived = {
        "image_status": images["status"],
        "image_sha256": images["sha256"],
        "image_phash": images["phash"],
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array([a if is_web(a) else "" for a in images["url"].to_pylist()], pa.string()),
        "input_text_sha256": pa.array(map(text_sha256, items["text"].to_pylist()), pa.string()),
    }
    names = schemas.RELEASED_ITEMS.names
    released = {name: items[name] if name in items.column_names else derived[name] for name in names}
    for name in LEFT_OUT[texts]:
        empty: Any = [] if name == "categories" else ""
        released[name] = pa.array([empty] * n, schemas.RELEASED_ITEMS.field(name).type)
    return pa.table(released)


def text_sha256(text: str | None) -> str:
    """Return the hex sha256 of a text as encoders read it; empty where they read none."""
    return hashlib.sha256(text.encode()).hexdigest() if text and text.strip() else ""


def image_sha256(image: bytes | None) -> str:
    """Return the hex sha256 of a JPEG as encoders read it; empty where they read none."""
    return hashlib.sha256(image).hexdigest() if image is not None else ""


def makers(paths: list[Path]) -> dict[str, Maker]:
    """Return stage -> parameters and versions from the tables' metadata, and the hash of its present code."""
    by_stage: dict[str, Maker] = {}
    for path in paths:
        if record := io.record(path):
            by_stage[record["stage"]] = Maker(
                params=record["params"],
                versions=record["versions"],
                code=code.fingerprint(f"stages.{record['stage']}"),
            )
    return dict(sorted(by_stage.items()))


def _copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.atomic(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _numbered(users: pa.Table) -> pa.Table:
    """Return table USERS with the dense number in place of the identifier."""
    number = users["user_id"].cast(pa.string())
    return users.set_column(users.column_names.index("user"), users.schema.field("user"), number)


def _unnamed(source: Path, target: Path) -> Path:
    """Write a file of user vectors without the users' identifiers."""
    table = pq.read_table(source, partitioning=None).drop_columns(["user"])
    schema = schemas.numbered_user_embeddings(table["vector"].type.list_size)
    io.write_table(table.replace_schema_metadata(), target, schema, io.record(source) or None)
    return target


def _halved(source: Path, target: Path) -> Path:
    """Write a file of features with float16 vectors; values out of its range are an error."""
    table = pq.read_table(source, partitioning=None)
    with np.errstate(over="ignore"):
        vectors = io.matrix(table["vector"]).astype(np.float16)
    schema = schemas.features_half(vectors.shape[1])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schema.field("vector").type)
    halved = table.set_column(table.column_names.index("vector"), schema.field("vector"), flat)
    io.write_table(halved, target, schema, io.record(source) or None)
    return target


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
