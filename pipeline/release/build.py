"""Builds a release folder next to the old one, and swaps it in once it is checked."""

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
from pipeline.layout import EncoderFiles
from pipeline.release import card, croissant, encoder, manifest, statement
from pipeline.release.manifest import Counts, Maker, Manifest
from pipeline.release.params import Publish
from pipeline.release.parts import Parts, networks
from pipeline.release.statement import Statement
from pipeline.report import content
from pipeline.sources.product import is_web
from pipeline.sources.registry import SOURCES

ITEMS = "items.parquet"
BEYOND_TITLES = ("brand", "description", "text", "image_url")
LEFT_OUT: dict[Shown, tuple[str, ...]] = {
    "all": (), "titles": BEYOND_TITLES, "none": ("title", *BEYOND_TITLES)
}  # fmt: skip
"""`publish.texts` -> columns that are left empty"""


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces `folder` when the block ends without an error."""
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
    outputs, layout = parts.outputs, parts.outputs.layout
    used_by, name = _encoders(folder, parts.encoders), layout.dataset
    states = content.states(_slices(folder / ITEMS, schemas.RELEASED_ITEMS, "image_status", "text_status"))
    users, interactions = (io.rows([path]) for path in (layout.users, layout.interactions))
    counts = Counts(users=users, items=states.total(), interactions=interactions)
    described = [manifest.describe(folder, p, tables.get(p), used_by.get(p, ())) for p in _files(folder)]
    made_by = _makers([*tables, *parts.upstream])
    said = Statement(
        publish=parts.publish,
        licence=SOURCES[outputs.kind].licence,
        dataset=name,
        counts=counts,
        lacking=content.incomplete(states),
        head=statement.head(_slices(layout.interactions, schemas.INTERACTIONS, "item_id", "split"), counts.items),
        learned=[name for name in (outputs.probes or {}).get("learned", ()) if name in parts.features],
        networks=networks(parts.features),
        users=statement.users({f.table for f in described}),
        inputs=parts.inputs,
        stages=[*made_by],
    )
    io.write_json(folder / croissant.NAME, croissant.describe(said, described))
    described.append(manifest.describe(folder, folder / croissant.NAME, None))
    io.write_bytes(folder / "README.md", card.render(parts, said, states, described).encode())
    written = Manifest(
        format=manifest.FORMAT,
        dataset=name,
        version=parts.publish.version,
        kind=outputs.kind,
        counts=counts,
        files=sorted([*described, manifest.describe(folder, folder / "README.md", None)], key=lambda f: f.path),
        inputs=parts.inputs,
        weights=parts.weights,
        encoders=dict(said.networks),
        made_by=made_by,
        code=code.fingerprint("stages.publish"),
    )
    manifest.write(folder / manifest.NAME, written)
    return written


def _tables(folder: Path, parts: Parts, record: Mapping[str, Any]) -> dict[Path, str]:
    """Write items, interactions and pieces; return the kind of table of each Parquet file."""
    io.write_tables(parts.items, folder / ITEMS, schemas.RELEASED_ITEMS, dict(record))
    tables, publish = {folder / ITEMS: "items"}, parts.publish
    if publish.interactions:
        layout = parts.outputs.layout
        for name, rows in (("interactions", layout.interactions), ("users", layout.users)):
            path, schema = folder / f"{name}.parquet", manifest.TABLES[name](0)
            read = io.read_tables(rows, schema)
            numbered = name == "users" and publish.users != "names"
            io.write_tables(map(_numbered, read) if numbered else read, path, schema, io.record(rows) or None)
            tables[path] = name
    for to, source, table in parts.pieces:
        target = folder / to
        if callable(source):
            with io.atomic(target) as temporary:
                source(temporary)
        elif not isinstance(source, Path):
            io.write_json(target, source)
        elif table == "user_embeddings" and publish.users != "names":
            table = f"numbered_{table}"
            _unnamed(source, target)
        else:
            _copy(source, target)
            if table == "features" and publish.half:
                half = folder / to.replace("features", "features-half", 1)
                _halve(source, half)
                tables[half] = "features_half"
        if table:
            tables[target] = table
    return tables


def _encoders(folder: Path, encoders: Mapping[str, encoder.ReleasedEncoder]) -> dict[Path, list[str]]:
    above = folder / encoder.FOLDER
    used_by: dict[Path, list[str]] = {}
    for name, released in encoders.items():
        own = above / name
        io.write_json(own / encoder.NAME, released.facts.model_dump())
        for source in released.files:
            _copy(source, own / source.name)
        if released.write is not None:
            released.write(own)
        used_by |= {path: [name] for path in _files(own)}
    for name, released in encoders.items():
        for part in released.facts.parts or [name]:
            weights = encoders[part].facts.weights
            needed = [*_files(above / part)] if part != name else []
            needed += EncoderFiles(above / weights).present() if weights not in (None, part) else []
            for path in needed:
                used_by[path] += [name] * (name not in used_by[path])
    return used_by


def released_items(items: pa.Table, images: pa.Table | None, publish: Publish) -> pa.Table:
    """Return schema RELEASED_ITEMS of n items: public image addresses and hashes are kept, image bytes never.

    `images` has status, url, sha256, phash and input_image_sha256 of the same items; None: none fetched. What
    `publish.texts` leaves out is empty.
    """
    n = len(items)
    blank = pa.array([""] * n, pa.string())
    if images is None:
        addresses = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()]
        columns = dict.fromkeys(("sha256", "input_image_sha256"), blank)
        nulls = {"status": pa.nulls(n, pa.string()), "phash": pa.nulls(n, pa.uint64())}
        images = pa.table(columns | nulls | {"url": pa.array(addresses, pa.string())})
    derived = {
        "image_status": images["status"],
        "image_sha256": images["sha256"],
        "image_phash": images["phash"],
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array([a if is_web(a) else "" for a in images["url"].to_pylist()], pa.string()),
        "input_text_sha256": pa.array(map(text_sha256, items["text"].to_pylist()), pa.string()),
    }
    derived |= dict.fromkeys(LEFT_OUT[publish.texts or "all"], blank)
    if publish.texts == "none":
        derived["categories"] = pa.array([[]] * n, schemas.RELEASED_ITEMS.field("categories").type)
    names = schemas.RELEASED_ITEMS.names
    return pa.table({name: derived[name] if name in derived else items[name] for name in names})


def text_sha256(text: str | None) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text and text.strip() else ""


def image_sha256(image: bytes | None) -> str:
    return hashlib.sha256(image).hexdigest() if image is not None else ""


def _makers(paths: list[Path]) -> dict[str, Maker]:
    by_stage: dict[str, Maker] = {}
    for path in paths:
        if record := io.record(path):
            source = code.fingerprint(f"stages.{record['stage']}")
            by_stage[record["stage"]] = Maker(params=record["params"], versions=record["versions"], code=source)
    return dict(sorted(by_stage.items()))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def _numbered(users: pa.Table) -> pa.Table:
    number = users["user_id"].cast(pa.string())
    return users.set_column(users.column_names.index("user"), users.schema.field("user"), number)


def _unnamed(source: Path, target: Path) -> None:
    own = schemas.numbered_user_embeddings(_width(source))
    parts = _slices(source, schemas.user_embeddings(_width(source)), *own.names)
    io.write_tables(parts, target, own, io.record(source) or None)


def _halve(source: Path, target: Path) -> None:
    own = schemas.features_half(_width(source))
    parts = _slices(source, schemas.features(_width(source)), *own.names)
    io.write_tables((_halved(part, own) for part in parts), target, own, io.record(source) or None)


def _halved(part: pa.Table, schema: pa.Schema) -> pa.Table:
    with np.errstate(over="ignore"):  # what does not fit is infinite, which the schema refuses
        vectors = io.matrix(part["vector"]).astype(np.float16)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schema.field("vector").type)
    return part.set_column(part.column_names.index("vector"), schema.field("vector"), flat)


def _slices(path: Path, schema: pa.Schema, *columns: str) -> Iterator[pa.Table]:
    return io.read_slices(path, schema, [*columns], io.PART)


def _width(path: Path) -> int:
    return int(pq.read_schema(path).field("vector").type.list_size)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
