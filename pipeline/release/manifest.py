"""manifest.json of a release; schemas/release.schema.json is the JSON Schema of `Manifest`."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import Part, first_fault

FORMAT: Literal[5] = 5
NAME = "manifest.json"
SIGNATURE = f"{NAME}.sig"  # only in signed releases
MAX_BYTES = 64 << 20  # larger manifests are rejected unread

DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_PATH, MAX_NAME = 1024, 255  # bytes per path and per component, as file systems limit them

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[
    int, Field(ge=0, lt=1 << 53)
]  # integers that every JSON parser represents exactly


class Kind(NamedTuple):
    """A kind of table in a release: its files and schema."""

    path: str  # glob of its files
    description: str
    # called with the vector width or number of codes; None: written by earlier versions only and not read
    schema: Callable[[int], pa.Schema] | None
    numbered: str = "item"  # id that runs from 0 without gaps: item or user; empty: none


TABLES = {
    "items": Kind(
        "items.parquet", "status of text and image, hashes of what was encoded, and the texts that are released",
        lambda _: schemas.RELEASED_ITEMS,
    ),
    "interactions": Kind("interactions.parquet", "who bought what, with the split", lambda _: schemas.INTERACTIONS, ""),
    "users": Kind("users.parquet", "identifiers of the users", lambda _: schemas.USERS, "user"),
    "features": Kind("features/*/*.parquet", "one vector per item", schemas.features),
    "features_half": Kind("features-half/*/*.parquet", "the same in float16", None, ""),
    "edges": Kind("graph/*/edges.parquet", "nearest items by cosine, itself first", lambda _: schemas.EDGES, ""),
    "item_embeddings": Kind(
        "embeddings/items.parquet", "the trained recommender's item vectors", schemas.item_embeddings
    ),
    "user_embeddings": Kind(
        "embeddings/users.parquet", "the trained recommender's user vectors; score = dot product",
        schemas.user_embeddings, "user",
    ),
    "numbered_user_embeddings": Kind(
        "embeddings/users.parquet", "the trained recommender's user vectors, by number; score = dot product",
        schemas.numbered_user_embeddings, "user",
    ),
    "semantic_ids": Kind("semantic_ids/*.parquet", "an item as a few discrete codes", schemas.semantic_ids),
    "tried": Kind("tried/*.parquet", "candidates of a set that valid chose", None, ""),
}  # fmt: skip
USER_VECTORS = ("user_embeddings", "numbered_user_embeddings")
# top-level folders with one entry per feature set
PER_SET = {entry.path.split("/")[0] for entry in TABLES.values() if "*" in entry.path}

Table = Literal[*TABLES]  # type: ignore[valid-type]


class Column(Part):
    """A column of a Parquet file."""

    name: str
    type: str
    """Arrow type"""


class File(Part):
    """One file of the release."""

    path: str
    """path relative to the release folder, with forward slashes"""
    bytes: Count
    sha256: Sha256
    table: Table | None = None
    """kind of table; null for files other than Parquet"""
    rows: Count | None = None
    columns: list[Column] | None = None
    used_by: list[str] = []
    """feature sets whose encoder needs the file, under encoders/"""

    @property
    def feature_set(self) -> str | None:
        """The set of features/<name>/... or semantic_ids/<name>/...; None for other paths."""
        top, *below = PurePosixPath(self.path).parts
        return PurePosixPath(below[0]).stem if below and top in PER_SET else None

    @property
    def table_path(self) -> str:
        """Path of the table; that of a feature set is a folder, as it can have several files."""
        return self.path.rpartition("/")[0] if self.table == "features" else self.path


class Counts(Part):
    """Size of the dataset that the release describes."""

    users: Count
    items: Count
    interactions: Count


class Input(Part):
    """A file that the release was made from."""

    name: str
    bytes: Count
    sha256: Sha256


class Maker(Part):
    """The stage that wrote a table, with the parameters and versions that the table records."""

    params: dict[str, Any]
    versions: dict[str, str]
    code: Sha256 | None = None
    """hash of the stage's source files when the release was published"""


class Encoder(Part):
    """The third-party model that made a feature set: as section `encoders` names it, or a package with weights."""

    kind: str
    """kind of encoder that loaded it"""
    model: str = ""
    """owner/name on the Hugging Face Hub, or the name of a folder or package"""
    revision: str = ""
    """commit on the Hub, or `sha256:` and a hash of the folder's files or the package's weights"""
    library: str = ""
    """package that loaded it, with version"""
    licence: str = ""
    """licence that a package states"""
    modalities: list[str] = []
    """modalities that it encodes: image, text"""
    prompt: str = ""
    """prefix of every text"""
    dim: Count | None = None
    """width of the vectors; null for a part"""
    name: str = ""
    """name of a part"""
    map: str = ""
    """use of train interactions in releases of earlier versions; empty"""
    parts: list[Encoder] = []
    """parts of a kind that combines encoders, in order"""


class ItemColumns(Part):
    """Columns of the source's item file, from which new items are read likewise."""

    roles: dict[str, str] = {}
    """role, such as item, title or image_urls -> its column; only roles with values"""
    text: list[str] = []
    """columns that were appended to the description"""

    def names(self) -> list[str]:
        return [*self.roles.values(), *self.text]


class Manifest(Part):
    """manifest.json of a release; it lists every other file of the folder."""

    format: Literal[5]
    """version of this schema"""
    dataset: str
    version: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")]
    """semantic version of the data"""
    kind: str
    """kind of source, such as amazon2014"""
    counts: Counts
    files: list[File]
    inputs: list[Input]
    weights: list[Input] = []
    """weights trained here: encoder, its tokenizer and whitening, recommender"""
    encoders: dict[str, Encoder] = {}
    """feature set -> the third-party model that made it"""
    columns: ItemColumns | None = None
    """columns of the item file; null in releases of earlier versions"""
    made_by: dict[str, Maker]
    """stage -> maker of its tables"""
    code: Sha256
    """hash of the source files that publishing uses, without those that run stages but do not shape their outputs,
    such as most of pipeline/runtime/"""
    part_of: Sha256 | None = None
    """hash of the complete release's manifest, if only a part of its files was fetched"""
    digest: Sha256 | None = None
    """hash of all other keys, see function `digest`"""

    def list_tables(self) -> list[File]:
        return [file for file in self.files if file.table is not None]

    def sets_with(self, table: str) -> list[str]:
        return sorted({str(file.feature_set) for file in self.files if file.table == table})

    def paths_of(self, folder: Path, table: str, name: str) -> list[Path]:
        return [
            folder / file.path
            for file in self.files
            if (file.table, file.feature_set) == (table, name)
        ]


def describe_file(
    folder: Path, path: Path, table: str | None = None, used_by: Sequence[str] = ()
) -> File:
    rows, columns = (None, None) if table is None else read_shape(path)
    name, size, used = path.relative_to(folder).as_posix(), path.stat().st_size, list(used_by)
    return File(
        path=name,
        bytes=size,
        sha256=io.sha256(path),
        table=table,
        rows=rows,
        columns=columns,
        used_by=used,
    )


def read_shape(path: Path) -> tuple[int, list[Column]]:
    metadata = pq.read_metadata(path)
    return metadata.num_rows, [
        Column(name=f.name, type=str(f.type)) for f in metadata.schema.to_arrow_schema()
    ]


def record_sets(files: Iterable[File]) -> dict[str, list[File]]:
    """Group the files by table, under the names used by Croissant and the Hub, such as features-beit3."""
    found: dict[str, list[File]] = {}
    for file in files:
        if file.table is not None:
            top, *folders = Path(file.path).parent.parts or ("",)
            name = "-".join([top.replace("_", "-"), *folders]) if file.feature_set else file.table
            found.setdefault(name, []).append(file)
    return found


def write(path: Path, manifest: Manifest) -> None:
    io.write_json(path, with_digest(manifest.model_dump()))


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, "digest": digest(orjson.loads(json.dumps(content)))}


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without key `digest`, as canonical JSON; TypeError if nested too deeply."""
    # detects accidental changes; only a signature detects forgery
    kept = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load(folder: Path) -> Manifest:
    return parse(folder, read(folder))


def read(folder: Path) -> bytes:
    """Return the raw bytes of the manifest; UserError if it is missing or larger than MAX_BYTES."""
    path = folder / NAME
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: no such file; is this a release folder?")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes, more than {MAX_BYTES}; this is no manifest of a release"
        )
    return path.read_bytes()


def parse(folder: Path, data: bytes) -> Manifest:
    """Parse and validate untrusted bytes as the manifest of `folder`; UserError for the first fault."""
    path = folder / NAME
    try:
        raw = orjson.loads(
            data
        )  # orjson rejects lone surrogates, which cannot be printed, and deep nesting
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}); fetch the release again") from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(version, int) and version != FORMAT:
        remedy = "install a later alignrec" if version > FORMAT else "publish it again"
        raise UserError(
            f"{path}: format {version}, and this alignrec reads format {FORMAT}; {remedy}"
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{path}: {first_fault(e, Manifest)}; this is no valid manifest") from None
    if not DATASET.fullmatch(manifest.dataset):
        raise UserError(
            f"{path}: {manifest.dataset!r} is no name of a dataset; do not trust this release"
        )
    if fault := _path_fault([file.path for file in manifest.files]):
        raise UserError(f"{path}: {fault}; do not trust this release")
    try:
        altered = digest(raw) != manifest.digest
    except TypeError:
        raise UserError(f"{path}: nested too deeply; do not trust this release") from None
    if altered:
        raise UserError(f"{path}: altered, its digest differs; fetch the release again")
    return manifest


def schema_json() -> str:
    return json.dumps(Manifest.model_json_schema(), indent=1) + "\n"


def _path_fault(names: list[str]) -> str:
    for name in names:
        parts = name.split("/")
        if (
            any(p in ("", ".", "..") for p in parts)
            or any(c in name for c in "\\:\0")
            or not name.isprintable()
        ):
            return f"{name!r} is no path inside the release"
        if len(name.encode()) > MAX_PATH or max(len(p.encode()) for p in parts) > MAX_NAME:
            return f"{name!r} is longer than file systems take"
    alike = {
        name: unicodedata.normalize("NFC", name).casefold() for name in names
    }  # the same file on some systems
    times = Counter([NAME, SIGNATURE, *(alike[name] for name in names)])
    for name in names:
        if alike[name] in (NAME, SIGNATURE):
            return f"lists {name} itself"
        if times[alike[name]] > 1:
            return f"{name!r} is named twice"
    ordered = sorted(
        path.replace("/", "\0") for path in times
    )  # sorts children directly after their parent
    for above, below in pairwise(ordered):
        if below.startswith(f"{above}\0"):
            path = below.replace("\0", "/")
            return f"{path!r}: its parent path is a file"
    return ""
