"""Fetch the image of every item into Parquet shards, in item order; images of an earlier run are reused."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.images import access
from alignrec.pipeline.images.decode import Decoded, PixelSemaphore, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.sql import open_database
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.sources.base import is_path

SHARED_ABOVE = 10  # images of more items are listed in run.json as possible placeholders
WINDOW = 64  # items processed at once; bounds memory
CANDIDATES = 32  # maximum addresses tried per item, as a record may list a hundred thousand
BLOCK = 1024  # items per checkpoint
MOST_FAILED = 0.5  # share of failed images above which the stage warns
# file names of Amazon's "no image available" images
PLACEHOLDER = re.compile(
    r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE
)
# parameters that affect access but not stored images, which are kept if they change
ACCESS = {"folder", "pattern", "outside", "private_hosts", "timeout"}

Progress = Callable[[int], object]  # called with the number of items done


class Fetcher(ExitStack):
    """Thread pool that fetches and normalises images; Pillow releases the GIL."""

    def __init__(self, params: Images, local: access.Files) -> None:
        super().__init__()
        self.params, self.files = params, local
        self._web = self.enter_context(
            closing(access.Crawler(params.timeout, params.max_bytes, params.private_hosts))
        )
        self._placeholders = {known.lower() for known in params.placeholders}
        self._semaphore = PixelSemaphore(params.max_pixels)
        one_thread: Any = {
            "initializer": torch.set_num_threads,
            "initargs": (1,),
        }  # or torch starts a pool in each
        self._pool = ThreadPoolExecutor(WINDOW, **one_thread)
        self.callback(self._pool.shutdown, cancel_futures=True)
        self.callback(self._web.stopped.set)

    def fetch_items(
        self, candidates: list[list[str]], progress: Progress = lambda n: None
    ) -> list[Decoded]:
        """Return one result per item, in order: its first address that is an image, else its first failure."""
        results = []
        for result in self._pool.map(self._fetch_first, candidates):
            results.append(result)
            progress(1)
        return results

    def _fetch_first(self, urls: list[str]) -> Decoded:
        first = None
        for url in urls[:CANDIDATES]:
            result = self._fetch_url(url)._replace(url=url)
            if result.status == "ok":
                return result
            first = first or result
        return first or Decoded("missing", "no address in the metadata")

    def _fetch_url(self, url: str) -> Decoded:
        if PLACEHOLDER.search(url):
            return Decoded("placeholder", "the address is that of a file for 'no image available'")
        params = self.params
        fetched = self.files.read(url, params.max_bytes) if is_path(url) else self._web.get(url)
        if fetched.data is None:
            return Decoded(fetched.status, fetched.reason)
        try:
            decoded = normalise_image(
                fetched.data, params.size, params.quality, params.max_pixels, self._semaphore
            )
        except MemoryError:
            fault = "not enough memory to decode this image; give more, or lower images.max_pixels"
            raise UserError(f"{one_line(url)}: {fault}") from None
        if decoded.sha256 in self._placeholders:
            return Decoded("placeholder", "one of images.placeholders", sha256=decoded.sha256)
        return decoded


def write_shards(run: Run, retry_failed: bool) -> list[Path]:
    params, total = run.params[Images], io.rows(io.present([run.layout.items]))
    items = io.read_slices(
        run.layout.items, schemas.ITEMS, ["item_id", "asin", "image_urls"], params.shard_rows
    )
    with run.lock_of_part():
        run.resume(run.folder, [], params.model_dump(exclude=ACCESS))
    start = access.find_image_root(run.source, run.layout.raw, params.folder)
    run.measure(folder=None if start is None else str(start))
    paths: list[Path] = []
    local = access.open_files(params, start)
    with (
        run.progress(total=total, unit="image") as bar,
        closing(local),
        Fetcher(params, local) as web,
    ):
        for number, part in enumerate(items):
            if run.owns_shard(number):
                paths.append(io.shard(run.folder, "images", number))
                _write_shard(run, web, part, paths[-1], retry_failed, bar.update)
    return paths


def _write_shard(
    run: Run, web: Fetcher, items: pa.Table, path: Path, retry_failed: bool, progress: Progress
) -> None:
    items = access.prepend_candidates(items, web.params.pattern, web.files.has)
    inputs = web.params.model_dump(), access.hash_inputs(items, web.files, web.params.max_bytes)
    key = run.key([], inputs, [f"alignrec.stages.{run.stage}"])
    if not retry_failed and io.is_finished(path, key):
        progress(len(items))
        return

    work = run.folder / ".blocks" / path.stem
    run.resume(work, [], inputs, retry_failed)
    same = io.is_finished(path) and io.read_table(path, schemas.IMAGES, ["asin"])["asin"].equals(
        items["asin"]
    )
    blocks = fetch_blocks(
        web, items, work, progress, io.read_tables(path, schemas.IMAGES) if same else ()
    )
    shaping = web.params.model_dump(exclude=ACCESS)  # provenance must not contain local paths
    run.write_all(blocks, path, schemas.IMAGES, params=shaping)
    io.finish(path, key)
    shutil.rmtree(work)


def fetch_blocks(
    web: Fetcher, items: pa.Table, work: Path, progress: Progress, stored: Iterable[pa.Table] = ()
) -> Iterator[pa.Table]:
    """Yield tables IMAGES of a shard; finished blocks are saved in `work`, so that a killed run resumes."""
    paths, earlier = [], iter(stored)
    for start in range(0, len(items), BLOCK):
        part, old = items.slice(start, BLOCK), next(earlier, None)
        paths.append(work / f"{start:08d}.parquet")
        if paths[-1].exists():
            progress(len(part))
        else:
            candidates = part["image_urls"].to_pylist()
            again = np.arange(len(part))
            if old is not None:  # keep images from the web whose address is still the item's first
                before = zip(
                    old["status"].to_pylist(), old["url"].to_pylist(), candidates, strict=True
                )
                kept = [
                    s == "ok" and urls[:1] == [url] and not any(map(is_path, urls))
                    for s, url, urls in before
                ]
                again = np.flatnonzero(~np.array(kept, bool))
                progress(len(part) - len(again))
            table = image_table(
                part.take(again), web.fetch_items([candidates[i] for i in again], progress)
            )
            if old is not None:
                place = np.arange(len(part))
                place[again] = len(part) + np.arange(len(again))
                table = pa.concat_tables(
                    [old, table.select(old.column_names).cast(old.schema)]
                ).take(place)
            io.write_table(table, paths[-1], schemas.IMAGES)
    for path in paths:  # after all blocks are saved, so that a failing shard keeps its progress
        yield io.read_table(path, schemas.IMAGES)


def image_table(items: pa.Table, results: list[Decoded]) -> pa.Table:
    columns = {name: [getattr(r, name) for r in results] for name in Decoded._fields}
    arrays = {
        name: pa.array(values, schemas.IMAGES.field(name).type) for name, values in columns.items()
    }
    return pa.table({"item_id": items["item_id"], "asin": items["asin"]} | arrays).select(
        schemas.IMAGES.names
    )


def count_duplicates(images: Iterable[pa.Table]) -> dict[str, object]:
    """Count items with identical bytes or equal phash; `shared` lists images of more than SHARED_ABOVE items."""
    kind = pa.schema(
        [schemas.IMAGES.field(name).remove_metadata() for name in ("url", "sha256", "phash")]
    )
    batches = (batch for table in images for batch in table.cast(kind).to_batches())
    with open_database() as db:
        db.register("fetched", pa.RecordBatchReader.from_batches(kind, batches))
        db.execute(
            "CREATE TABLE images AS SELECT sha256, count(*) AS items, min(url) AS url, min(phash) AS phash "
            "FROM fetched WHERE sha256 <> '' GROUP BY sha256"
        )
        counts = "coalesce(sum(items), 0)::BIGINT - count(*), count(phash) - count(DISTINCT phash)"
        (same, near), *_ = db.execute(f"SELECT {counts} FROM images").fetchall()
        many = f"SELECT sha256, items, url FROM images WHERE items > {SHARED_ABOVE:d} ORDER BY items DESC, sha256"
        return {
            "duplicates": same,
            "near_duplicates": near,
            "shared": db.sql(many).to_arrow_table().to_pylist(),
        }


def count_outcomes(run: Run, paths: Sequence[Path]) -> None:
    """Count statuses and duplicates; warn if most images failed, or raise UserError if a parameter is wrong."""
    statuses = Counter[str]()
    for path in paths:
        statuses.update(io.read_table(path, schemas.IMAGES, ["status"])["status"].to_pylist())
    run.rows_in, run.rows_out = statuses.total(), statuses["ok"]
    for status in schemas.IMAGE_STATUSES[1:]:
        run.count(status, statuses[status])
    run.note(
        **count_duplicates(
            io.read_table(path, schemas.IMAGES, ["url", "sha256", "phash"]) for path in paths
        )
    )
    named, ok, where = run.rows_in - run.drops["missing"], run.rows_out, run.measured["folder"]
    if not named and (patterns := run.params[Images].pattern):
        named_so = " or ".join(patterns)
        raise UserError(
            f"images: no item has a file {named_so} below {where}; correct images.pattern or images.folder"
        )
    if not named or ok >= (1 - MOST_FAILED) * named:
        return
    tables = (io.read_table(path, schemas.IMAGES, ["url", "status", "reason"]) for path in paths)
    rows = [row for table in tables for row in table.to_pylist() if row["url"]]
    local = [row for row in rows if is_path(row["url"])]
    if len(local) > MOST_FAILED * named and {(row["status"], row["reason"]) for row in local} == {
        access.NO_FILE[1:]
    }:
        lacking = f"not one of the {len(local):,} files that items name is there, such as {local[0]['url']!r}"
        raise UserError(f"images: {lacking} below {where}; name in images.folder where paths start")
    status, n = max(
        ((s, n) for s, n in run.drops.items() if s != "missing"), key=lambda failure: failure[1]
    )
    reason = Counter(row["reason"] for row in rows if row["status"] == status).most_common(1)[0][0]
    text = f"{named - ok:,} of {named:,} images could not be had, {n:,} of them {status}, such as {reason!r}"
    if not ok and status == "blocked":
        raise UserError(
            f"images: {text}; see `images` in the parameters: such as folder, outside and private_hosts"
        )
    run.warn(f"{text}; `alignrec images {run.dataset} --retry-failed` tries again")
