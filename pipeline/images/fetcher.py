"""Fetch the images of every item into Parquet shards, in item order.

Images of an earlier run are reused.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import repeat
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import torch

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.images import access
from alignrec.pipeline.images.decode import Decoded, PixelSemaphore, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.images.stored import StoredImages
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.sql import open_database
from alignrec.pipeline.runtime.layout import FURTHER_STEM, Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.sources.base import is_path

SHARED_ABOVE = 10  # images of more items are listed in run.json as possible placeholders
ITEMS_AT_ONCE = 64  # bounds memory
MAX_ADDRESSES = 32  # tried per item, as a record may list a hundred thousand
FETCH_BLOCK_ITEMS = 1024  # saved at a time
MAX_FAILED_SHARE = 0.5  # of images, above which the stage warns
# file names of Amazon's "no image available" images
PLACEHOLDER = re.compile(
    r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE
)
# parameters that affect access but not stored images, which are kept if they change
ACCESS = {"folder", "pattern", "outside", "private_hosts", "timeout"}

Progress = Callable[[int], object]  # called with the number of items done
Known = Mapping[str, Decoded]  # address -> its outcome in an earlier run


class Fetcher(ExitStack):
    """Thread pool that fetches and normalises images; Pillow releases the GIL."""

    def __init__(self, params: Images, local: access.ImageFiles) -> None:
        super().__init__()
        self.params = params
        self.files = local
        crawler = access.Crawler(params.timeout, params.max_bytes, params.private_hosts)
        self._web = self.enter_context(closing(crawler))
        self._placeholders = {sha256.lower() for sha256 in params.placeholders}
        self._semaphore = PixelSemaphore(params.max_pixels)
        # one thread each, or torch starts a pool in each
        one_thread: Any = {"initializer": torch.set_num_threads, "initargs": (1,)}
        self._pool = ThreadPoolExecutor(ITEMS_AT_ONCE, **one_thread)
        self.callback(self._pool.shutdown, cancel_futures=True)
        self.callback(self._web.stopped.set)

    def fetch_items(
        self,
        candidates: list[list[str]],
        progress: Progress = lambda n: None,
        known: Iterable[Known] | None = None,
    ) -> list[Decoded]:
        """Return a result per item, in order: its first image, else its first failure.

        Addresses in the item's `known` are not fetched.
        """
        results = []
        for result in self._pool.map(self._fetch_item, candidates, known or repeat({})):
            results.append(result)
            progress(1)
        return results

    def _fetch_item(self, urls: list[str], known: Known) -> Decoded:
        first: Decoded | None = None
        for url in urls[:MAX_ADDRESSES]:
            outcome = known.get(url) or self._fetch_url(url)._replace(url=url)
            if outcome.status == "ok":
                return outcome
            first = first or outcome
        return first or Decoded("missing", "no address in the metadata")

    def _fetch_url(self, url: str) -> Decoded:
        if PLACEHOLDER.search(url):
            reason = "the address is that of a file for 'no image available'"
            return Decoded("placeholder", reason)

        params = self.params
        is_local = is_path(url)
        fetched = self.files.read(url, params.max_bytes) if is_local else self._request(url)
        if fetched.data is None:
            return Decoded(fetched.status, fetched.reason)

        limits = (params.size, params.quality, params.max_pixels, self._semaphore)
        try:
            decoded = normalise_image(fetched.data, *limits)
        except MemoryError:
            raise UserError(
                f"{one_line(url)}: not enough memory to decode this image; "
                "give more, or lower images.max_pixels"
            ) from None
        if decoded.sha256 in self._placeholders:
            return Decoded("placeholder", "one of images.placeholders", sha256=decoded.sha256)
        return decoded

    def _request(self, url: str) -> access.Fetched:
        fetched = self._web.get(url)
        plain = access.without_rendering(url)
        if fetched.data is not None or plain == url:
            return fetched
        again = self._web.get(plain)
        return fetched if again.data is None else again


def write_shards(run: Run, retry_failed: bool) -> list[Path]:
    params = run.params[Images]
    tables = list_item_tables(run.layout)
    total = io.rows(io.present(list(tables.values())))
    run.resume(run.folder, [], params.model_dump(exclude=ACCESS))

    root = access.find_image_root(run.source, run.layout.raw, params.folder)
    run.measure(folder=None if root is None else str(root))
    paths: list[Path] = []
    local = access.open_files(params, root)
    bar = run.progress(total=total, unit="image")
    with bar, closing(local), Fetcher(params, local) as web:
        for stem, table in tables.items():
            columns = ["item_id", "asin", "image_urls"]
            items = io.read_slices(table, schemas.ITEMS, columns, params.shard_rows)
            for number, part in enumerate(items):
                path = io.shard(run.folder, stem, number)
                paths.append(path)
                _write_shard(run, web, part, path, retry_failed, bar.update)
    return paths


def list_item_tables(layout: Layout) -> dict[str, Path]:
    """Return stem of the files of images -> table of their items."""
    tables = {"images": layout.items}
    if layout.further_items.is_file():
        tables[FURTHER_STEM] = layout.further_items
    return tables


def _write_shard(
    run: Run, web: Fetcher, items: pa.Table, path: Path, retry_failed: bool, progress: Progress
) -> None:
    items = access.prepend_candidates(items, web.params.pattern, web.files.has)
    content = access.hash_inputs(items, web.files, web.params.max_bytes)
    inputs = web.params.model_dump(), content
    key = run.key([], inputs, [f"alignrec.stages.{run.stage}"])
    if not retry_failed and io.is_finished(path, key):
        progress(len(items))
        return

    work = run.folder / ".blocks" / path.stem
    run.resume(work, [], inputs, retry_failed)
    stored = StoredImages(path) if io.is_finished(path) else None
    blocks = fetch_blocks(web, items, work, progress, stored)
    shaping = web.params.model_dump(exclude=ACCESS)  # provenance must not contain local paths
    run.write_all(blocks, path, schemas.IMAGES, params=shaping)
    io.finish(path, key)
    shutil.rmtree(work)


def fetch_blocks(
    web: Fetcher,
    items: pa.Table,
    work: Path,
    progress: Progress,
    stored: StoredImages | None = None,
    items_per_block: int = FETCH_BLOCK_ITEMS,
) -> Iterator[pa.Table]:
    """Yield tables IMAGES of a shard.

    Finished blocks are saved in `work`, so that a killed run resumes. Images of `stored` are kept
    if they are from the web and still among the addresses of their item.
    """
    paths = []
    for start in range(0, len(items), items_per_block):
        block = items.slice(start, items_per_block)
        path = work / f"{start:08d}.parquet"
        paths.append(path)
        if path.exists():
            progress(len(block))
            continue
        known = None
        if stored is not None:
            known = map(_known_outcomes, stored.find(block["asin"].to_pylist()))
        results = web.fetch_items(block["image_urls"].to_pylist(), progress, known)
        io.write_table(image_table(block, results), path, schemas.IMAGES)
    # after all blocks are saved, so that a failing shard keeps its progress
    for path in paths:
        yield io.read_listed(path, schemas.IMAGES)


def _known_outcomes(row: dict[str, Any] | None) -> Known:
    """Return the outcomes of an item's addresses that need not be fetched again."""
    known: dict[str, Decoded] = {}
    if row is None:
        return known
    outcome = Decoded(**{name: row[name] for name in Decoded._fields})
    if outcome.status == "ok" and not is_path(outcome.url):
        known[outcome.url] = outcome
    return known


def image_table(items: pa.Table, results: list[Decoded]) -> pa.Table:
    columns = {"item_id": items["item_id"], "asin": items["asin"]}
    for name in Decoded._fields:
        values = [getattr(result, name) for result in results]
        columns[name] = pa.array(values, schemas.IMAGES.field(name).type)
    return pa.table(columns).select(schemas.IMAGES.names)


def count_duplicates(images: Iterable[pa.Table], shared_above: int) -> dict[str, object]:
    """Count items with identical bytes.

    `shared` lists images of more than `shared_above` items.
    """
    fields = [schemas.IMAGES.field(name) for name in ("url", "sha256")]
    schema = pa.schema([field.remove_metadata() for field in fields])
    batches = (batch for table in images for batch in table.cast(schema).to_batches())
    with open_database() as db:
        db.register("fetched", pa.RecordBatchReader.from_batches(schema, batches))
        try:
            db.execute(
                "CREATE TABLE images AS "
                "SELECT sha256, count(*) AS items, min(url) AS url "
                "FROM fetched WHERE sha256 <> '' GROUP BY sha256"
            )
        except duckdb.InvalidInputException as e:  # an error of `images`, in words of DuckDB
            raise UserError(f"images cannot be read back: {one_line(e, 300)}") from None
        (equal,), *_ = db.execute(
            "SELECT coalesce(sum(items), 0)::BIGINT - count(*) FROM images"
        ).fetchall()
        shared = db.sql(
            f"SELECT sha256, items, url FROM images WHERE items > {shared_above:d} "
            "ORDER BY items DESC, sha256"
        ).to_arrow_table()
    return {"duplicates": equal, "shared": shared.to_pylist()}


def count_outcomes(run: Run, paths: Sequence[Path]) -> None:
    """Count statuses and duplicates.

    Warn if most images failed, or raise UserError if a parameter is wrong.
    """
    statuses: Counter[str] = Counter()
    for path in paths:
        statuses.update(io.read_table(path, schemas.IMAGES, ["status"])["status"].to_pylist())
    run.rows_in = statuses.total()
    run.rows_out = statuses["ok"]
    for status in schemas.IMAGE_STATUSES[1:]:
        run.count(status, statuses[status])
    columns = ["url", "sha256"]
    images = (io.read_table(path, schemas.IMAGES, columns) for path in paths)
    run.note(**count_duplicates(images, SHARED_ABOVE))

    n_named = run.rows_in - run.drops["missing"]
    patterns = run.params[Images].pattern
    if not n_named and patterns:
        raise UserError(
            f"images: no item has a file {' or '.join(patterns)} below {run.measured['folder']}; "
            "correct images.pattern or images.folder"
        )
    if n_named and run.rows_out < (1 - MAX_FAILED_SHARE) * n_named:
        _report_failures(run, paths, n_named)


def _report_failures(run: Run, paths: Sequence[Path], n_named: int) -> None:
    """Warn of the most common failure; UserError if it is one of the parameters."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        table = io.read_table(path, schemas.IMAGES, ["url", "status", "reason"])
        rows += [row for row in table.to_pylist() if row["url"]]

    local = [row for row in rows if is_path(row["url"])]
    failures = {(row["status"], row["reason"]) for row in local}
    if len(local) > MAX_FAILED_SHARE * n_named and failures == {access.NO_FILE[1:]}:
        raise UserError(
            f"images: not one of the {len(local):,} files that items name is there, such as "
            f"{local[0]['url']!r} below {run.measured['folder']}; name in images.folder where "
            "paths start"
        )

    drops = {status: n for status, n in run.drops.items() if status != "missing"}
    status = max(drops, key=drops.__getitem__)
    reasons = Counter(row["reason"] for row in rows if row["status"] == status)
    reason = reasons.most_common(1)[0][0]
    failed = f"{n_named - run.rows_out:,} of {n_named:,} images could not be had"
    text = f"{failed}, {drops[status]:,} of them {status}, such as {reason!r}"
    if not run.rows_out and status == "blocked":
        raise UserError(
            f"images: {text}; "
            "see `images` in the parameters: such as folder, outside and private_hosts"
        )
    run.warn(f"{text}; `alignrec images {run.dataset} --retry-failed` tries again")
