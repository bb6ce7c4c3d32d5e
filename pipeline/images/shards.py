"""The images of all items, a shard at a time: what an earlier run fetched stays, what failed or changed is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.images import files
from alignrec.pipeline.images.fetcher import Fetcher, table
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.sources.product import is_path

BLOCK = 1024  # items between two saves
ACCESS = {"folder", "pattern", "outside", "private_hosts", "timeout"}
"""parameters that decide whether an image is reached, and not what is made of it: fetched ones stay if they change"""


def write_shards(run: Run, retry_failed: bool) -> list[Path]:
    """Write images-*.parquet, in the order of items, and return the files.

    If local files, addresses of its items or ACCESS have changed, a shard keeps only its images from the web.
    """
    params, total = run.params[Images], io.rows(io.present([run.layout.items]))
    items = io.read_slices(run.layout.items, schemas.ITEMS, ["item_id", "asin", "image_urls"], params.shard_rows)
    with run.alone():
        run.resume(run.folder, [], params.model_dump(exclude=ACCESS))
    start = files.start_of(run.source, run.layout.raw, params.folder)
    run.measure(folder=None if start is None else str(start))
    paths: list[Path] = []
    with (
        run.progress(total=total, unit="image") as bar,
        closing(files.open_files(params, start)) as local,
        Fetcher(params, local) as web,
    ):
        for number, part in enumerate(items):
            if not run.takes(number):
                continue
            columns = part["asin"].to_pylist(), part["image_urls"].to_pylist()
            urls = pa.array(files.candidates(*columns, params.pattern, local.has), part["image_urls"].type)
            found = part.set_column(part.column_names.index("image_urls"), "image_urls", urls)
            current = [params.model_dump(), files.fingerprint(run.layout, run.source, params, part)]
            paths.append(io.shard(run.folder, "images", number))
            _write_shard(run, web, found, paths[-1], current, retry_failed, bar.update)
    return paths


def _write_shard(
    run: Run, web: Fetcher, items: pa.Table, path: Path, current: list[Any], retry_failed: bool,
    done: Callable[[int], object],
) -> None:  # fmt: skip
    mark, work = run.folder / ".shards" / path.stem / ".key", run.folder / ".blocks" / path.stem
    key = run.key([], current, [f"alignrec.stages.{run.stage}"])
    if not retry_failed and path.exists() and mark.is_file() and mark.read_bytes() == key.encode():
        done(len(items))
        return
    run.resume(work, [], current, retry_failed)
    same = path.exists() and run.read(path, schemas.IMAGES, ["asin"])["asin"].equals(items["asin"])
    blocks = fetch_blocks(web, items, work, done, io.read_tables(path, schemas.IMAGES) if same else ())
    shaping = run.params[Images].model_dump(exclude=ACCESS)  # the file's record names no folder of this machine
    run.write_all(blocks, path, schemas.IMAGES, params=shaping)
    io.write_bytes(mark, key.encode())
    shutil.rmtree(work)


def fetch_blocks(
    web: Fetcher, items: pa.Table, work: Path, done: Callable[[int], object], before: Iterable[pa.Table] = ()
) -> Iterator[pa.Table]:
    """Yield a shard's images, schema IMAGES; finished blocks are kept in `work`, so that a killed run loses one block.

    Images from the web that `before`, blocks of an earlier run, has under an item's first address stay. `done` is
    called with numbers of items.
    """
    paths, earlier = [], iter(before)
    for start in range(0, len(items), BLOCK):
        part, path, old = items.slice(start, BLOCK), work / f"{start:08d}.parquet", next(earlier, None)
        if path.exists():
            done(len(part))
        else:
            io.write_table(_fetch_block(web, part, done, old), path, schemas.IMAGES)
        paths.append(path)
    for path in paths:  # only now, as a shard that fails half-way should have kept its blocks
        yield io.read_table(path, schemas.IMAGES)


def _fetch_block(web: Fetcher, items: pa.Table, done: Callable[[int], object], old: pa.Table | None) -> pa.Table:
    candidates = items["image_urls"].to_pylist()
    if old is None:
        return table(items, web.fetch(candidates, done))
    before = zip(old["status"].to_pylist(), old["url"].to_pylist(), candidates, strict=True)
    kept = [state == "ok" and urls[:1] == [url] and not any(map(is_path, urls)) for state, url, urls in before]
    again = np.flatnonzero(~np.array(kept, bool))
    done(len(items) - len(again))
    fresh = table(items.take(again), web.fetch([candidates[i] for i in again], done))
    place = np.arange(len(items))
    place[again] = len(items) + np.arange(len(again))
    return pa.concat_tables([old, fresh.select(old.column_names).cast(old.schema)]).take(place)
