"""Image addresses -> images or reasons, a row an item.

The result depends on what the addresses answer, never on the order in which answers come.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

import schemas
from pipeline import io
from pipeline.config import Images
from pipeline.http.web import Client, Fetched, Policy
from pipeline.images.decode import Decoded, failed, normalise_all

WINDOW = 64  # items under way at a time; bounds memory
BATCH = 16  # images that a decoder takes at a time, at most
BLOCK = 1024  # items between two saves
NEAR = 4  # bits of 64 by which hashes of one image differ at most after resizing and recompressing
# names of Amazon's "no image available" files
PLACEHOLDER = re.compile(r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE)


class Result(NamedTuple):
    """The outcome of one item, and the address that gave it."""

    decoded: Decoded
    url: str


class Fetcher:
    """Fetches and normalises images; keeps connections and the state of hosts from call to call.

    One thread fetches; a thread a core decodes, taking several images at a time from a queue. Pillow decodes,
    shrinks and encodes without holding Python's lock: processes were slower.
    """

    def __init__(self, params: Images, files: Path | None) -> None:
        """Set up.

        Args:
            params: limits and what is allowed.
            files: folder that file:// addresses start from; None refuses them.
        """
        self.params, self.files = params, files
        self._web = Client(Policy(**{name: getattr(params, name) for name in Policy._fields}))
        self._known_sha256 = {known for known in params.placeholders if len(known) == 64}
        self._known_phashes = [int(known, 16) for known in params.placeholders if len(known) == 16]
        self._workers = os.cpu_count() or 1
        # torch would start threads of its own in each of these
        self._pool = ThreadPoolExecutor(self._workers, initializer=torch.set_num_threads, initargs=(1,))
        self._normalise = partial(normalise_all, size=params.size, quality=params.quality, max_pixels=params.max_pixels)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Fetcher:
        """Return the fetcher."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close connections and threads."""
        self._runner.run(self._web.close())
        self._runner.close()
        self._pool.shutdown(cancel_futures=True)

    def fetch(self, candidates: list[list[str]], done: Callable[[int], object] = lambda n: None) -> list[Result]:
        """Return one result an item, in order.

        Args:
            candidates: addresses of each item, best first; the first that gives an image counts. If none does, the
                first one's failure is the item's.
            done: called with a number of items that are done.
        """
        return self._runner.run(self._all(candidates, done))

    async def _all(self, candidates: list[list[str]], done: Callable[[int], object]) -> list[Result]:
        results = [Result(failed("missing", "no address in the metadata"), "")] * len(candidates)
        todo = iter(range(len(candidates)))
        self._fetched: asyncio.Queue[tuple[bytes, asyncio.Future[Decoded]]] = asyncio.Queue()
        decoders = [asyncio.create_task(self._decode()) for _ in range(self._workers)]

        async def work() -> None:
            for i in todo:  # shared: each worker takes the next item
                if candidates[i]:
                    results[i] = await self._item(candidates[i])
                done(1)

        try:
            await asyncio.gather(*(work() for _ in range(min(WINDOW, len(candidates)))))
        finally:
            for decoder in decoders:
                decoder.cancel()
        return results

    async def _decode(self) -> None:
        """Feed one worker until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._fetched.get()]
            while len(batch) < BATCH and not self._fetched.empty():
                batch.append(self._fetched.get_nowait())
            try:
                results = await loop.run_in_executor(self._pool, self._normalise, [data for data, _ in batch])
            except Exception as e:  # out of memory
                for _, future in batch:
                    future.set_exception(e)
            else:
                for (_, future), decoded in zip(batch, results, strict=True):
                    future.set_result(decoded)

    async def _item(self, urls: list[str]) -> Result:
        results = []
        for url in urls:
            results.append(Result(await self._one(url), url))
            if results[-1].decoded.status == "ok":
                return results[-1]
        return results[0]

    async def _one(self, url: str) -> Decoded:
        if PLACEHOLDER.search(url):
            return failed("placeholder", "the address is that of a file for 'no image available'")
        fetched = self._read(url) if url[:5].lower() == "file:" else await self._web.get(url)
        if fetched.data is None:
            return failed(fetched.status, fetched.reason)
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._fetched.put_nowait((fetched.data, future))
        decoded = await future
        if self._is_placeholder(decoded):
            return failed("placeholder", "one of images.placeholders", decoded.sha256)
        return decoded

    def _is_placeholder(self, decoded: Decoded) -> bool:
        """Return whether images.placeholders has an image's sha256, or a phash that is NEAR its own."""
        phash = decoded.phash
        return decoded.sha256 in self._known_sha256 or (
            phash is not None and any((phash ^ other).bit_count() <= NEAR for other in self._known_phashes)
        )

    def _read(self, url: str) -> Fetched:
        """Read a file:// address, whose root is `files` and which cannot leave it."""
        if self.files is None:
            return Fetched(None, "blocked", "file addresses are not allowed; see images.allow_file")
        try:
            root = self.files.resolve()
            path = (root / unquote(urlsplit(url).path).lstrip("/")).resolve()
            if not path.is_relative_to(root):
                return Fetched(None, "blocked", "outside the dataset's folder")
            if not path.is_file():
                return Fetched(None, "unreachable", "no such file")
            if path.stat().st_size > self.params.max_bytes:
                return Fetched(None, "too_large", f"more than {self.params.max_bytes} bytes")
            return Fetched(path.read_bytes())
        except (OSError, ValueError):  # a name that no file can have, or a file that may not be read
            return Fetched(None, "unreachable", "not a readable file")


def shard(fetcher: Fetcher, items: pa.Table, work: Path, done: Callable[[int], object]) -> Iterator[pa.Table]:
    """Fetch the images of one shard's items, block by block, so that a killed run loses one block at most.

    Args:
        fetcher: does the work.
        items: item_id, asin and image_urls of the shard.
        work: folder of finished blocks, of this shard alone; not needed once the shard is written.
        done: called with a number of items that are done.

    Yields:
        tables of schema IMAGES, one a block.
    """
    paths = []
    for start in range(0, len(items), BLOCK):
        part, path = items.slice(start, BLOCK), work / f"{start:08d}.parquet"
        if path.exists():
            done(len(part))
        else:
            io.write_table(table(part, fetcher.fetch(part["image_urls"].to_pylist(), done)), path, schemas.IMAGES)
        paths.append(path)
    for path in paths:  # only now, as a shard that fails half-way should have kept its blocks
        yield io.read_table(path, schemas.IMAGES)


def retry_failed(fetcher: Fetcher, blocks: Iterable[pa.Table], items: pa.Table) -> Iterator[pa.Table]:
    """Yield the blocks of a shard with failed images fetched again; rows that are ok or have no address stay.

    Args:
        fetcher: does the work.
        blocks: tables of schema IMAGES.
        items: item_id, asin and image_urls of the shard.
    """
    start = 0
    for block in blocks:
        rows = np.flatnonzero([status not in ("ok", "missing") for status in block["status"].to_pylist()])
        part = items.slice(start, len(block)).take(rows)
        start += len(block)
        fresh = table(part, fetcher.fetch(part["image_urls"].to_pylist()))
        where = np.arange(len(block))
        where[rows] = len(block) + np.arange(len(rows))
        yield pa.concat_tables([block, fresh.select(block.column_names).cast(block.schema)]).take(where)


def duplicates(images: pa.Table, above: int) -> dict[str, object]:
    """Count images that several items share.

    Args:
        images: url, sha256 and phash of every item.
        above: items that a real image may belong to.

    Returns:
        duplicates (items whose bytes an earlier item has), near_duplicates (other items of equal phash) and shared: the
        images of more than `above` items, most frequent first: likely placeholders, for images.placeholders if they
        are.
    """
    fetched = images.filter(pc.field("sha256") != "")
    groups = fetched.group_by("sha256").aggregate([("url", "count"), ("url", "min"), ("phash", "min")])
    decoded = groups.filter(pc.field("phash_min").is_valid())
    names = {"sha256": "sha256", "url_count": "items", "url_min": "url"}
    many = groups.filter(pc.field("url_count") > above).sort_by([("url_count", "descending"), ("sha256", "ascending")])
    return {
        "duplicates": len(fetched) - len(groups),
        "near_duplicates": len(decoded) - pc.count_distinct(decoded["phash_min"]).as_py(),
        "shared": many.drop_columns("phash_min").rename_columns(names).to_pylist(),
    }


def table(items: pa.Table, results: list[Result]) -> pa.Table:
    """Return results as a table of schema IMAGES, beside the item_id and asin of `items`."""
    decoded = [r.decoded for r in results]
    columns = {
        "status": [p.status for p in decoded],
        "reason": [p.reason for p in decoded],
        "url": [r.url for r in results],
        "image": [p.image for p in decoded],
        "width": [p.width for p in decoded],
        "height": [p.height for p in decoded],
        "sha256": [p.sha256 for p in decoded],
        "phash": [p.phash for p in decoded],
    }
    arrays = {name: pa.array(values, schemas.IMAGES.field(name).type) for name, values in columns.items()}
    return pa.table({"item_id": items["item_id"], "asin": items["asin"]} | arrays)
