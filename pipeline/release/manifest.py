"""manifest.json of a release, and the paths that an untrusted one may list.

schemas/release.schema.json is the JSON Schema of `Manifest`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import orjson
import pyarrow.parquet as pq
from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.params import Version
from alignrec.pipeline.release.table_kinds import PER_SET, TABLES
from alignrec.pipeline.runtime import releases
from alignrec.pipeline.runtime.section import Part, first_fault

FORMAT: Literal[6] = 6
MANIFEST_FILE = releases.MANIFEST_FILE
MAX_MANIFEST_BYTES = releases.MAX_MANIFEST_BYTES
SIGNATURE_FILE = f"{MANIFEST_FILE}.sig"  # only in signed releases
SAMPLE = "sample"  # address of the release that comes with the package
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_PATH_BYTES = 1024  # as file systems limit paths
MAX_NAME_BYTES = 255  # of a component of a path
RESERVED = re.compile(r"CON|PRN|AUX|NUL|(COM|LPT)[0-9\u00b9\u00b2\u00b3]")
FORBIDDEN_CHARACTERS = frozenset("\\:\0")  # in a path

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# integers that every JSON parser represents exactly
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


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
        """The set of features/<name>/... or semantic_ids/<name>/...; None for others."""
        top, *below = PurePosixPath(self.path).parts
        return PurePosixPath(below[0]).stem if below and top in PER_SET else None

    @property
    def table_path(self) -> str:
        """Path of the table; that of a feature set is a folder, as it can have several files."""
        return self.path.rpartition("/")[0] if self.table == "features" else self.path

    @property
    def width(self) -> int:
        """Width of the first fixed-size list; 1 without one."""
        for column in self.columns or []:
            if match := re.fullmatch(r"fixed_size_list<.*>\[(\d{1,9})\]", column.type):
                return int(match[1])
        return 1


class Counts(Part):
    """Size of the dataset that the release describes."""

    users: Count
    items: Count
    interactions: Count
    core: Count | None = None
    """the first items, which have interactions and vectors of the recommender; null: all have"""

    @model_validator(mode="after")
    def _is_part(self) -> Self:
        if self.core is not None and not 0 < self.core <= self.items:
            raise ValueError(f"core is {self.core}, of {self.items} items")
        return self


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
    """The third-party model that made a set, as `encoders` names it, or a package with weights."""

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
    task: str = ""
    """task that is named to the model's modules"""
    pooling: str = ""
    """vector of a text: the mean of its tokens, the first (cls) or the last; empty: the model's"""
    trained_on: str = ""
    """data that the model was trained on, as its user states"""
    dim: Count | None = None
    """width of the vectors; null for a part"""
    name: str = ""
    """name of a part"""
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

    format: Literal[6]
    """version of this schema"""
    dataset: str
    version: Version
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
    """columns of the item file; null without one"""
    made_by: dict[str, Maker]
    """stage -> maker of its tables"""
    code: Sha256
    """hash of the source files that publishing uses, without those that run stages but do not shape
    their outputs, such as most of pipeline/runtime/"""
    part_of: Sha256 | None = None
    """hash of the complete release's manifest, if only a part of its files was fetched"""
    digest: Sha256 | None = None
    """hash of all other keys, see function `digest`"""

    def list_tables(self) -> list[File]:
        return [file for file in self.files if file.table is not None]

    def sets_with(self, table: str) -> list[str]:
        return sorted({str(file.feature_set) for file in self.files if file.table == table})

    def widths_of(self, name: str) -> list[int]:
        """Return the width of each file of a feature set."""
        files = [file for file in self.files if file.table == "features"]
        return [file.width for file in files if file.feature_set == name]

    def paths_of(self, folder: Path, table: str, name: str) -> list[Path]:
        return [
            folder / file.path
            for file in self.files
            if file.table == table and file.feature_set == name
        ]


def describe_file(
    folder: Path, path: Path, table: str | None = None, used_by: Sequence[str] = ()
) -> File:
    rows = columns = None
    if table is not None:
        rows, columns = read_shape(path)
    return File(
        path=path.relative_to(folder).as_posix(),
        bytes=path.stat().st_size,
        sha256=io.sha256(path),
        table=table,
        rows=rows,
        columns=columns,
        used_by=list(used_by),
    )


def read_shape(path: Path) -> tuple[int, list[Column]]:
    metadata = pq.read_metadata(path)
    schema = metadata.schema.to_arrow_schema()
    return metadata.num_rows, [Column(name=field.name, type=str(field.type)) for field in schema]


def record_sets(files: Iterable[File]) -> dict[str, list[File]]:
    """Group files by table, under the names of Croissant and the Hub, such as features-beit3."""
    sets: dict[str, list[File]] = {}
    for file in files:
        if file.table is not None:
            sets.setdefault(_record_set_name(file), []).append(file)
    return sets


def _record_set_name(file: File) -> str:
    if not file.feature_set:
        return str(file.table)
    top, *folders = Path(file.path).parent.parts or ("",)
    return "-".join([top.replace("_", "-"), *folders])


def write(path: Path, manifest: Manifest) -> None:
    io.write_json(path, with_digest(manifest.model_dump()))


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, "digest": digest(orjson.loads(json.dumps(content)))}


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without key `digest`, as canonical JSON.

    Raises TypeError if it is nested too deeply.
    """
    # detects accidental changes; only a signature detects forgery
    hashed = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(orjson.dumps(hashed, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load(folder: Path) -> Manifest:
    return parse(folder, read(folder))


def suggest_release(path: Path) -> str:
    """Return what to do about a path without a release: the most similar name, if there is none."""
    question = "is this a release folder?"
    return question if path.exists() else io.suggest_file(path, [SAMPLE], question)


def read(folder: Path) -> bytes:
    """Return the raw bytes of the manifest; UserError if it is missing or too large."""
    path = folder / MANIFEST_FILE
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: no such file; {suggest_release(folder)}")
    size = path.stat().st_size
    if size > MAX_MANIFEST_BYTES:
        raise UserError(
            f"{path}: {size} bytes, more than {MAX_MANIFEST_BYTES}; "
            "this is no manifest of a release"
        )
    return path.read_bytes()


def parse(folder: Path, data: bytes) -> Manifest:
    """Parse and validate untrusted bytes as the manifest of `folder`; UserError for a fault."""
    path = folder / MANIFEST_FILE
    try:
        # orjson rejects lone surrogates, which cannot be printed, and deep nesting
        raw = orjson.loads(data)
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
        fault = first_fault(e, Manifest)
        raise UserError(f"{path}: {fault}; this is no valid manifest") from None

    if not DATASET_NAME.fullmatch(manifest.dataset):
        raise UserError(
            f"{path}: {manifest.dataset!r} is no name of a dataset; do not trust this release"
        )
    fault = find_path_fault([file.path for file in manifest.files])
    if fault:
        raise UserError(f"{path}: {fault}; do not trust this release")
    try:
        is_altered = digest(raw) != manifest.digest
    except TypeError:
        raise UserError(f"{path}: nested too deeply; do not trust this release") from None
    if is_altered:
        raise UserError(f"{path}: altered, its digest differs; fetch the release again")
    return manifest


def find_path_fault(paths: list[str]) -> str:
    for path in paths:
        if not _is_inside(path):
            return f"{path!r} is no path inside the release"
        if not all(map(_is_shared, path.split("/"))):
            return f"{path!r} is no name on some systems"
        longest_name = max(len(name.encode()) for name in path.split("/"))
        if len(path.encode()) > MAX_PATH_BYTES or longest_name > MAX_NAME_BYTES:
            return f"{path!r} is longer than file systems take"

    # on some systems, paths that differ only in case or composition are one file
    folded = {path: unicodedata.normalize("NFC", path).casefold() for path in paths}
    counts = Counter([MANIFEST_FILE, SIGNATURE_FILE, *(folded[path] for path in paths)])
    for path in paths:
        if folded[path] in (MANIFEST_FILE, SIGNATURE_FILE):
            return f"lists {path} itself"
        if counts[folded[path]] > 1:
            return f"{path!r} is named twice"

    # sorts children directly after their parent
    ordered = sorted(path.replace("/", "\0") for path in counts)
    for above, below in pairwise(ordered):
        if below.startswith(f"{above}\0"):
            path = below.replace("\0", "/")
            return f"{path!r}: its parent path is a file"
    return ""


def _is_shared(name: str) -> bool:
    """Return whether a name means a file on all systems: Windows reserves some, in any case and
    with any ending.
    """
    stem = name.partition(".")[0].strip().upper()
    return not name.endswith((".", " ")) and not RESERVED.fullmatch(stem)


def _is_inside(path: str) -> bool:
    is_plain = all(name not in ("", ".", "..") for name in path.split("/"))
    return is_plain and path.isprintable() and not FORBIDDEN_CHARACTERS.intersection(path)


def schema_json() -> str:
    return json.dumps(Manifest.model_json_schema(), indent=1) + "\n"
