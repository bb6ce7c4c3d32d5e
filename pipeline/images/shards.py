"""The images of all items, a shard at a time: what an earlier run fetched stays, what failed or changed is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.images import fetcher, files
from pipeline.images.params import Images
from pipeline.run import Run

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
        fetcher.Fetcher(params, local) as web,
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
    run: Run, web: fetcher.Fetcher, items: pa.Table, path: Path, current: list[Any], retry_failed: bool,
    done: Callable[[int], object],
) -> None:  # fmt: skip
    mark, work = run.folder / ".shards" / path.stem / ".key", run.folder / ".blocks" / path.stem
    key = run.key([], current, [f"stages.{run.stage}"])
    is_current = path.exists() and mark.is_file() and mark.read_bytes() == key.encode()
    if is_current and not retry_failed:
        done(len(items))
        return
    run.resume(work, [], current, retry_failed)
    same = path.exists() and run.read(path, schemas.IMAGES, ["asin"])["asin"].equals(items["asin"])
    before = io.read_tables(path, schemas.IMAGES) if same else ()
    keep = fetcher.succeeded if is_current else fetcher.unchanged
    shaping = run.params[Images].model_dump(exclude=ACCESS)  # the file's record names no folder of this machine
    run.write_all(fetcher.shard(web, items, work, done, before, keep), path, schemas.IMAGES, params=shaping)
    io.write_bytes(mark, key.encode())
    shutil.rmtree(work)
