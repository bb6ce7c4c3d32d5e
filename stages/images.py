"""images: fetch, verify and shrink the image of every item; each ends with an image or with one reason."""

from __future__ import annotations

import shutil
from collections import Counter

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.images import fetcher
from pipeline.run import Run


def main(run: Run, retry_failed: bool = False) -> None:
    """Write images-*.parquet, a shard at a time; existing shards are kept, or their failures fetched again."""
    layout, params, work = run.layout, run.params.images, run.folder / ".blocks"
    items = run.read(layout.items, schemas.ITEMS, ["item_id", "asin", "image_urls"])
    run.resume(run.folder, [layout.items, layout.sources], params.model_dump())
    outcomes = []
    with (
        run.progress(total=len(items), unit="image") as bar,
        fetcher.Fetcher(params, layout.raw if params.allow_file else None) as web,
    ):
        for number, start in enumerate(range(0, len(items), params.shard_rows)):
            part, path = items.slice(start, params.shard_rows), io.shard(run.folder, "images", number)
            if not path.exists():
                run.write_all(fetcher.shard(web, part, work / path.stem, bar.update), path, schemas.IMAGES)
                shutil.rmtree(work)
            else:
                if retry_failed:
                    blocks = io.read_tables(path, schemas.IMAGES)
                    run.write_all(fetcher.retry_failed(web, blocks, part), path, schemas.IMAGES)
                bar.update(len(part))
            outcomes.append(run.read(path, schemas.IMAGES, ["status", "url", "sha256", "phash"]))
    rows = pa.concat_tables(outcomes)
    statuses = Counter(rows["status"].to_pylist())
    run.rows_in, run.rows_out = len(items), statuses["ok"]
    for status in schemas.IMAGE_STATUSES[1:]:
        run.count(status, statuses[status])
    run.note(**fetcher.duplicates(rows, params.shared_above))
