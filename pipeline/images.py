"""Image addresses -> pictures or reasons, a row an item.

The result depends on what the addresses answer, never on the order in which answers come.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.config import Images
from pipeline.pictures import Picture, failed, normalise
from pipeline.web import Fetched, Policy, Web

WINDOW = 64  # items under way at a time; bounds memory
BLOCK = 1024  # items between two saves
# names of Amazon's "no image available" pictures
PLACEHOLDER = re.compile(r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE)


class Result(NamedTuple):
    """The ending of one item, and the address that gave it."""

    picture: Picture
    url: str


class Fetcher:
    """Fetches and normalises; keeps connections, and what it learned of hosts, from call to call.

    Pillow decodes, shrinks and encodes without holding Python's lock, so threads use all cores.
    """

    def __init__(self, params: Images, files: Path | None) -> None:
        """Set up.

        Args:
            params: limits and what is allowed.
            files: folder that file:// addresses start from; None refuses them.
        """
        self.params, self.files = params, files
        policy = {name: getattr(params, name) for name in Policy._fields if name != "private_hosts"}
        self._web = Web(Policy(**policy, private_hosts=tuple(params.private_hosts)))
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._runner = asyncio.Runner()

    def __enter__(self) -> Fetcher:
        """Return the fetcher."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close connections and threads."""
        self._runner.run(self._web.close())
        self._runner.close()
        self._pool.shutdown(cancel_futures=True)

    def fetch(self, candidates: list[list[str]]) -> list[Result]:
        """Return one result an item, in order.

        Args:
            candidates: addresses of each item, best first; the first that gives a picture counts. If none does, the
                first one's failure is the item's.
        """
        return self._runner.run(self._all(candidates))

    async def _all(self, candidates: list[list[str]]) -> list[Result]:
        results = [Result(failed("missing", "no address in the metadata"), "")] * len(candidates)
        todo = iter(range(len(candidates)))

        async def work() -> None:
            for i in todo:  # shared: each worker takes the next item
                if candidates[i]:
                    results[i] = await self._item(candidates[i])

        await asyncio.gather(*(work() for _ in range(min(WINDOW, len(candidates)))))
        return results

    async def _item(self, urls: list[str]) -> Result:
        ends = []
        for url in urls:
            ends.append(Result(await self._one(url), url))
            if ends[-1].picture.status == "ok":
                return ends[-1]
        return ends[0]

    async def _one(self, url: str) -> Picture:
        if PLACEHOLDER.search(url):
            return failed("placeholder", "the address names a picture that says there is none")
        got = self._read(url) if url[:5].lower() == "file:" else await self._web.get(url)
        if got.data is None:
            return failed(got.status, got.reason)
        p = self.params
        decode = partial(normalise, got.data, p.size, p.quality, p.max_pixels)
        return await asyncio.get_running_loop().run_in_executor(self._pool, decode)

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


def shard(fetcher: Fetcher, items: pa.Table, work: Path, done: Callable[[int], object]) -> pa.Table:
    """Fetch the pictures of one shard's items, block by block, so that a killed run loses one block at most.

    Args:
        fetcher: does the work.
        items: item_id, asin and image_urls of the shard.
        work: folder of finished blocks, of this shard alone; superfluous when the shard is written.
        done: called with the number of items that are done.

    Returns:
        table of schema IMAGES.
    """
    blocks = []
    for start in range(0, len(items), BLOCK):
        part, path = items.slice(start, BLOCK), work / f"{start:08d}.parquet"
        if not path.exists():
            io.write_table(table(part, fetcher.fetch(part["image_urls"].to_pylist())), path, schemas.IMAGES)
        blocks.append(io.read_table(path, schemas.IMAGES))
        done(len(part))
    return pa.concat_tables(blocks)


def again(fetcher: Fetcher, found: pa.Table, items: pa.Table) -> pa.Table:
    """Return `found` with its failures fetched once more; what is ok or has no address stays."""
    rows = np.flatnonzero([status not in ("ok", "missing") for status in found["status"].to_pylist()])
    if not rows.size:
        return found
    part = items.take(rows)
    fresh = table(part, fetcher.fetch(part["image_urls"].to_pylist()))
    where = np.arange(len(found))
    where[rows] = len(found) + np.arange(len(rows))
    return pa.concat_tables([found, fresh.select(found.column_names).cast(found.schema)]).take(where)


def table(items: pa.Table, results: list[Result]) -> pa.Table:
    """Return results as a table of schema IMAGES, beside the item_id and asin of `items`."""
    pictures = [r.picture for r in results]
    columns = {
        "status": [p.status for p in pictures],
        "reason": [p.reason for p in pictures],
        "url": [r.url for r in results],
        "image": [p.image for p in pictures],
        "width": [p.width for p in pictures],
        "height": [p.height for p in pictures],
        "sha256": [p.sha256 for p in pictures],
        "phash": [p.phash for p in pictures],
    }
    made = {name: pa.array(values, schemas.IMAGES.field(name).type) for name, values in columns.items()}
    return pa.table({"item_id": items["item_id"], "asin": items["asin"]} | made)
