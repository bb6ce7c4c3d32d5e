"""`alignrec embed` of Parquet into S3, with one part of the rows on disk at a time."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.encoders.registry import ENCODERS, Network, settings_facts
from alignrec.pipeline.features.encode import list_modules
from alignrec.pipeline.io.errors import Absent, UserError, one_line
from alignrec.pipeline.release.choice import Choice
from alignrec.pipeline.release.embed import FACTS, Summary, embed, find_networks
from alignrec.pipeline.release.item_file import digest_identifier
from alignrec.pipeline.release.item_table import ItemTable
from alignrec.pipeline.release.loading import facts_here
from alignrec.pipeline.release.stores import MAX_ATTEMPTS, Bucket
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.web.retries import TransientError, retry

MAX_GROUP_BYTES = 4 << 30  # of a row group in memory: the guard against decompression bombs
ROWS_PER_BATCH = 256  # in memory, with images
KEY = "key"  # attribute of an object: the hash of what it was made of


class TableObject(NamedTuple):
    """A Parquet object of a table."""

    bucket: Bucket
    name: str
    size: int
    etag: str | None

    @classmethod
    def find(cls, bucket: Bucket, name: str) -> Self:
        with bucket.translate_errors():
            meta = bucket.objects.head(name)
        return cls(bucket, name, meta["size"], meta.get("e_tag"))

    @property
    def address(self) -> str:
        return f"{self.bucket.address}/{self.name}"


class ObjectFile(RawIOBase):
    """An object of S3 as a file, read by ranges."""

    def __init__(self, source: TableObject) -> None:
        self._source = source
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self._place, SEEK_END: self._source.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = min(self._place + len(buffer), self._source.size)
        if end <= self._place:
            return 0
        data = retry(lambda: self.read_range(end), MAX_ATTEMPTS)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def read_range(self, end: int) -> bytes:
        from obstore.exceptions import PreconditionError

        source = self._source
        options: Any = {"range": (self._place, end)}
        if source.etag:
            options["if_match"] = source.etag
        with source.bucket.translate_errors():
            try:
                return bytes(source.bucket.objects.get(source.name, options=options).bytes())
            except PreconditionError:
                raise UserError(f"{source.address}: changed while it was read; run again") from None


def embed_remote(
    address: str,
    to: str,
    open_part: Callable[[Path], ItemTable],
    choice: Choice,
    root: Path,
    options: Any = None,
) -> Summary:
    """Encode the Parquet at an address below `to`, parts of `encode.shard_rows` rows; see `embed`.

    `open_part` finds the columns of a local part by `options` (JSON). A part that is there is kept,
    and the unfinished one resumes from the folder of outputs `root`. Rejected rows go to
    `_rejects-*.parquet`.
    """
    work = Layout(root, "table").work("embed")
    choice = choice._replace(cache=None)
    networks = find_networks(choice, Layout(work, "table"))
    _refuse_fitted(choice, networks)
    bucket = Bucket(to)
    try:
        sources = list_sources(address)
        key = _key_of(sources, choice, networks, options)
        return _embed_parts(sources, bucket, open_part, choice, work / key[:16], key)
    except TransientError as e:
        raise UserError(f"{address} or {bucket.address}: {e}; run again to continue") from None


def _refuse_fitted(choice: Choice, networks: Sequence[Network]) -> None:
    fitted = [*choice.parts]
    fitted += [network.name for network in networks if ENCODERS[network.kind].fit]
    if fitted:
        raise UserError(
            f"'{fitted[0]}' is fitted to the whole table, and s3:// is embedded part by part; "
            "embed a local table, or take an encoder of a release"
        )


def _key_of(
    sources: Sequence[TableObject], choice: Choice, networks: Sequence[Network], options: Any
) -> str:
    """Return a hash of all that the parts depend on."""
    facts = [[source.address, source.size, source.etag] for source in sources]
    images = choice.images.facts()
    settings: list[Any] = [choice.name, choice.encode.facts(), images, options]
    if choice.project:
        settings.append(facts_here(choice.project, choice.name).model_dump())

    modules = [__name__, "alignrec.pipeline.release.embed"]
    files: list[Path] = []
    for network in networks:
        modules += list_modules(network)
        files += ENCODERS.source_files(network.kind)
        settings.append(settings_facts(network, choice.encode))
        if network.origin:
            files += network.files()
    return Run.key(files, [facts, settings], modules)


def list_sources(address: str) -> list[TableObject]:
    """Return the Parquet objects at an address, which names one or a folder of them."""
    if address.endswith(".parquet"):
        above, _, name = address.rpartition("/")
        bucket = Bucket(above)
        with bucket.translate_errors():
            metas = [bucket.objects.head(name)]
    else:
        bucket = Bucket(address)
        with bucket.translate_errors():
            metas = [meta for batch in bucket.objects.list() for meta in batch]

    sources = []
    for meta in sorted(metas, key=lambda meta: meta["path"]):
        name = meta["path"]
        # as of a local folder: not those of folders below, or named _ or . at the start
        if name.endswith(".parquet") and "/" not in name and name[0] not in "_.":
            sources.append(TableObject(bucket, name, meta["size"], meta.get("e_tag")))
    if not sources:
        raise UserError(f"{address}: no *.parquet there; tables in s3:// are Parquet")
    return sources


def _embed_parts(
    sources: Sequence[TableObject],
    bucket: Bucket,
    open_part: Callable[[Path], ItemTable],
    choice: Choice,
    work: Path,
    key: str,
) -> Summary:
    """Encode and send the parts that are not there, one at a time in the folder `work`."""
    rows = choice.encode.shard_rows
    total = _count_rows(sources)
    numbers = range(-(-total // rows))
    done = [number for number in numbers if _is_done(bucket, _name(number), key)]
    _is_done(bucket, FACTS, key)

    seen: set[bytes] = set()
    for number in done:
        seen |= _digests(_read_columns(bucket, _name(number)).column(0))
    needed = set(numbers) - set(done)
    for number, tables in groupby(_read_rows(sources, rows, needed), lambda part: part[0]):
        part = work / _name(number)
        if not part.is_file():
            _write_part((table for _, table in tables), part)
        table = open_part(part)._replace(seen=seen, first_line=number * rows + 1)
        _embed_part(table, choice, work / "out", bucket, number, key)
        seen |= _digests(_read_columns(bucket, _name(number)).column(0))
        part.unlink()
    io.remove(work)
    return _summarise(bucket, numbers, key)


def _name(number: int, stem: str = "features") -> str:
    return io.shard(Path(), stem, number).name


def _open(source: TableObject) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(ObjectFile(source), pre_buffer=False)
    except pa.ArrowException as e:
        raise UserError(f"{source.address}: not a sound Parquet file: {one_line(e, 100)}") from None


def _count_rows(sources: Sequence[TableObject]) -> int:
    """Return the rows of all objects; UserError unless they have the same columns."""
    total = 0
    schema: pa.Schema | None = None
    for source in sources:
        file = _open(source)
        schema = schema or file.schema_arrow
        if not file.schema_arrow.equals(schema):
            raise UserError(f"{source.address}: has other columns than {sources[0].address}")
        total += file.metadata.num_rows
    return total


def _is_done(bucket: Bucket, name: str, key: str) -> bool:
    """Return whether an object is there; UserError if it was made of something else."""
    with suppress(Absent), bucket.translate_errors():
        stored = bucket.objects.get(name, options={"head": True})
        if stored.attributes.get(KEY) != key:
            raise UserError(
                f"{bucket.address}/{name}: exists already, of another table, encoder or settings; "
                "name another folder"
            )
        return True
    return False


def _read_rows(
    sources: Sequence[TableObject], rows: int, needed: set[int]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables of rows with the number of their part, without those of other parts."""
    place = 0
    for source in sources:
        file = _open(source)
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            if metadata.total_byte_size > MAX_GROUP_BYTES:
                raise UserError(
                    f"{source.address}: a row group takes {metadata.total_byte_size:,} bytes of "
                    "memory; write smaller ones"
                )

            last = place + metadata.num_rows - 1
            if needed.isdisjoint(range(place // rows, last // rows + 1)):
                place += metadata.num_rows
                continue
            for number, table in _cut(_read_group(file, group, source), place, rows):
                place += len(table)
                if number in needed:
                    yield number, table


def _read_group(file: pq.ParquetFile, group: int, source: TableObject) -> Iterator[pa.Table]:
    try:
        for batch in file.iter_batches(ROWS_PER_BATCH, [group]):
            yield pa.Table.from_batches([batch])
    except pa.ArrowException as e:
        raise UserError(f"{source.address}: not sound: {one_line(e, 100)}") from None


def _cut(tables: Iterable[pa.Table], place: int, rows: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables that no boundary of parts crosses; the first begins at row `place`."""
    for table in tables:
        start = 0
        while start < len(table):
            length = min(len(table) - start, rows - place % rows)
            yield place // rows, table.slice(start, length)
            start += length
            place += length


def _write_part(tables: Iterator[pa.Table], path: Path) -> None:
    first = next(tables)
    with io.atomic(path) as temporary, pq.ParquetWriter(temporary, first.schema) as file:
        file.write_table(first)
        for table in tables:
            file.write_table(table)


def _embed_part(
    table: ItemTable, choice: Choice, out: Path, bucket: Bucket, number: int, key: str
) -> None:
    """Encode a local part, and send it; its rejected rows first, as its vectors say it is done."""
    rejects = out.with_name(f"{out.name}.rejects.parquet")
    io.remove(out)
    embed(table, choice, out)
    if rejects.is_file():
        send_part(rejects, bucket, _name(number, "_rejects"), key)
    send_part(out / _name(0), bucket, _name(number), key)
    io.remove(out)
    io.remove(rejects)


def send_part(path: Path, bucket: Bucket, name: str, key: str) -> None:
    data = path.read_bytes()
    attributes = {"sha256": hashlib.sha256(data).hexdigest(), KEY: key}

    def put() -> None:
        with bucket.translate_errors():
            bucket.objects.put(name, data, attributes=attributes, max_concurrency=2)

    retry(put, MAX_ATTEMPTS)


def _read_columns(bucket: Bucket, name: str) -> pa.Table:
    """Read identifiers, `has_image` and `has_text` of a part that was sent."""
    file = _open(TableObject.find(bucket, name))
    return file.read([file.schema_arrow.names[0], "has_image", "has_text"])


def _digests(identifiers: pa.ChunkedArray) -> set[bytes]:
    return {digest_identifier(identifier) for identifier in identifiers.to_pylist()}


def _summarise(bucket: Bucket, numbers: Sequence[int], key: str) -> Summary:
    """Count what was sent, and send the facts of the whole last."""
    counts = Counter[str]()
    reasons = Counter[str]()
    record: dict[str, Any] = {}
    for number in numbers:
        rows = _read_columns(bucket, _name(number))
        record = orjson.loads((rows.schema.metadata or {}).get(b"alignrec", b"{}"))
        counts["items"] += len(rows)
        for column in ("has_image", "has_text"):
            counts[column] += pc.sum(rows[column]).as_py() or 0
        reasons += _count_reasons(bucket, _name(number, "_rejects"))

    about = record | {"items": counts["items"], "rejected": reasons, "parts": len(numbers)}
    with bucket.translate_errors():
        bucket.objects.put(FACTS, orjson.dumps(about), attributes={KEY: key})
    rejects = f"{bucket.address}/_rejects-*.parquet"
    return Summary(counts["items"], counts["has_image"], counts["has_text"], rejects, reasons)


def _count_reasons(bucket: Bucket, name: str) -> Counter[str]:
    """Count the reasons of a part's rejected rows, if it has any."""
    try:
        table = TableObject.find(bucket, name)
    except Absent:
        return Counter()
    reasons = _open(table).read(["reason"])["reason"].to_pylist()
    return Counter("occurred before" if r.endswith("occurred before") else r for r in reasons)
