"""Image addresses -> images or reasons, a row per item, whatever the order in which answers come."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

import schemas
from pipeline import io
from pipeline.errors import UserError, one_line
from pipeline.images.crawler import Crawler
from pipeline.images.decode import Decoded, Room, failed, normalise
from pipeline.images.files import Files
from pipeline.images.params import Images
from pipeline.sources.product import is_path
from pipeline.sources.sql import connected

SHARED_ABOVE = 10  # an image of more items than this is listed in run.json: it may be a placeholder
WINDOW = 64  # items under way at a time; bounds memory
CANDIDATES = 32  # addresses tried for an item, at most: one record may name a hundred thousand
BLOCK = 1024  # items between two saves
# names of Amazon's "no image available" files
PLACEHOLDER = re.compile(r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE)


class Result(NamedTuple):
    """The outcome of one item, and the address that gave it."""

    decoded: Decoded
    url: str


Keep = Callable[[str, str, list[str]], bool]  # (status, address, the item's present addresses) -> whether it stays


class Fetcher(ExitStack):
    """Fetches and normalises images in threads; keeps connections from call to call.

    Pillow decodes, shrinks and encodes without holding Python's lock: processes were slower.
    """

    def __init__(self, params: Images, files: Files) -> None:
        super().__init__()
        self.params, self.files = params, files
        self._web = self.enter_context(closing(Crawler(params.timeout, params.max_bytes, params.private_hosts)))
        self._placeholders = {known.lower() for known in params.placeholders}
        self._room = Room(params.max_pixels)
        one_thread: Any = {"initializer": torch.set_num_threads, "initargs": (1,)}  # torch would start more in each
        self._pool = ThreadPoolExecutor(WINDOW, **one_thread)
        self.callback(self._pool.shutdown, cancel_futures=True)
        self.callback(self._web.stop)

    def fetch(self, candidates: list[list[str]], done: Callable[[int], object] = lambda n: None) -> list[Result]:
        """Return a result per item, in order: of the first of CANDIDATES that is an image, else the first failure."""
        results = []
        for result in self._pool.map(self._item, candidates):
            results.append(result)
            done(1)
        return results

    def _item(self, urls: list[str]) -> Result:
        first = None
        for url in urls[:CANDIDATES]:
            result = Result(self._one(url), url)
            if result.decoded.status == "ok":
                return result
            first = first or result
        return first or Result(failed("missing", "no address in the metadata"), "")

    def _one(self, url: str) -> Decoded:
        if PLACEHOLDER.search(url):
            return failed("placeholder", "the address is that of a file for 'no image available'")
        params = self.params
        fetched = self.files.read(url, params.max_bytes) if is_path(url) else self._web.get(url)
        if fetched.data is None:
            return failed(fetched.status, fetched.reason)
        try:
            decoded = normalise(fetched.data, params.size, params.quality, params.max_pixels, self._room)
        except MemoryError:
            raise UserError(
                f"{one_line(url)}: not enough memory to decode this image; give more, or lower images.max_pixels"
            ) from None
        if decoded.sha256 in self._placeholders:
            return failed("placeholder", "one of images.placeholders", decoded.sha256)
        return decoded


def shard(
    fetcher: Fetcher,
    items: pa.Table,
    work: Path,
    done: Callable[[int], object],
    before: Iterable[pa.Table] = (),
    keep: Keep = lambda status, url, urls: True,
) -> Iterator[pa.Table]:
    """Yield a shard's images, schema IMAGES; finished blocks are kept in `work`, so that a killed run loses one block.

    Rows of `before`, an earlier run's, stay where `keep` says so. `done` is called with numbers of items.
    """
    paths, earlier = [], iter(before)
    for start in range(0, len(items), BLOCK):
        part, path, old = items.slice(start, BLOCK), work / f"{start:08d}.parquet", next(earlier, None)
        if path.exists():
            done(len(part))
        else:
            io.write_table(_block(fetcher, part, done, old, keep), path, schemas.IMAGES)
        paths.append(path)
    for path in paths:  # only now, as a shard that fails half-way should have kept its blocks
        yield io.read_table(path, schemas.IMAGES)


def _block(
    fetcher: Fetcher, items: pa.Table, done: Callable[[int], object], old: pa.Table | None, keep: Keep
) -> pa.Table:
    candidates = items["image_urls"].to_pylist()
    if old is None:
        return table(items, fetcher.fetch(candidates, done))
    before = zip(old["status"].to_pylist(), old["url"].to_pylist(), candidates, strict=True)
    again = np.flatnonzero([not keep(*row) for row in before])
    done(len(items) - len(again))
    fresh = table(items.take(again), fetcher.fetch([candidates[i] for i in again], done))
    place = np.arange(len(items))
    place[again] = len(items) + np.arange(len(again))
    return pa.concat_tables([old, fresh.select(old.column_names).cast(old.schema)]).take(place)


def succeeded(status: str, url: str, urls: list[str]) -> bool:
    return status in ("ok", "missing")


def unchanged(status: str, url: str, urls: list[str]) -> bool:
    return status == "ok" and urls[:1] == [url] and not any(map(is_path, urls))


def duplicates(images: Iterable[pa.Table]) -> dict[str, object]:
    """Count items whose bytes an earlier one has, and others of equal phash, from url, sha256 and phash of every item.

    `shared` has the images of more than SHARED_ABOVE items, most frequent first: candidates for images.placeholders.
    """
    kind = pa.schema([schemas.IMAGES.field(name).remove_metadata() for name in ("url", "sha256", "phash")])
    batches = (batch for table in images for batch in table.cast(kind).to_batches())
    with connected() as db:
        db.register("fetched", pa.RecordBatchReader.from_batches(kind, batches))
        db.execute(
            "CREATE TABLE images AS SELECT sha256, count(*) AS items, min(url) AS url, min(phash) AS phash "
            "FROM fetched WHERE sha256 <> '' GROUP BY sha256"
        )
        counts = "coalesce(sum(items), 0)::BIGINT - count(*), count(phash) - count(DISTINCT phash)"
        (same, near), *_ = db.execute(f"SELECT {counts} FROM images").fetchall()
        many = f"SELECT sha256, items, url FROM images WHERE items > {SHARED_ABOVE:d} ORDER BY items DESC, sha256"
        return {"duplicates": same, "near_duplicates": near, "shared": db.sql(many).to_arrow_table().to_pylist()}


def table(items: pa.Table, results: list[Result]) -> pa.Table:
    columns = {name: [getattr(r.decoded, name) for r in results] for name in Decoded._fields}
    columns["url"] = [r.url for r in results]
    arrays = {name: pa.array(values, schemas.IMAGES.field(name).type) for name, values in columns.items()}
    return pa.table({"item_id": items["item_id"], "asin": items["asin"]} | arrays).select(schemas.IMAGES.names)
