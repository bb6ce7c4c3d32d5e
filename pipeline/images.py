"""Image addresses -> pictures or reasons, a row an item, shard by shard.

The result depends on what the addresses answer, never on the order in which answers come.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa

import schemas
from pipeline.config import Images
from pipeline.pictures import Picture, failed, normalise
from pipeline.web import Fetched, Policy, Web

WINDOW = 64  # items under way at a time; bounds memory


class Result(NamedTuple):
    """The ending of one item, and the address that gave it."""

    picture: Picture
    url: str


def fetch_shard(
    candidates: list[list[str]], params: Images, files: Path | None, done: Callable[[], object]
) -> list[Result]:
    """Fetch and normalise the pictures of some items.

    Args:
        candidates: addresses of each item, best first; the first that gives a picture counts. If none does, the first
            one's failure is the item's.
        params: limits and what is allowed.
        files: folder that file:// addresses start from; None refuses them.
        done: called after each item.

    Returns:
        one result an item, in order.
    """
    return asyncio.run(_shard(candidates, params, files, done))


async def _shard(
    candidates: list[list[str]], params: Images, files: Path | None, done: Callable[[], object]
) -> list[Result]:
    policy = Policy(params.timeout, params.retries, params.per_host, params.give_up_after, params.max_bytes,
                    params.allow_private)  # fmt: skip
    results: list[Result] = [Result(failed("missing", "no address in the metadata"), "")] * len(candidates)
    todo = iter(range(len(candidates)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        async with Web(policy) as web:

            async def work() -> None:
                for i in todo:  # shared: each worker takes the next item
                    if candidates[i]:
                        results[i] = await _item(candidates[i], web, pool, params, files)
                    done()

            await asyncio.gather(*(work() for _ in range(min(WINDOW, len(candidates)))))
    return results


async def _item(urls: list[str], web: Web, pool: Executor, params: Images, files: Path | None) -> Result:
    first: Result | None = None
    loop = asyncio.get_running_loop()
    for url in urls:
        got = _read(url, files, params.max_bytes) if is_file(url) else await web.get(url)
        if got.data is None:
            picture = failed(got.status, got.reason)
        else:
            decode = partial(normalise, got.data, params.size, params.quality, params.max_pixels)
            picture = await loop.run_in_executor(pool, decode)
        if picture.status == "ok":
            return Result(picture, url)
        first = first or Result(picture, url)
    assert first is not None
    return first


def is_file(url: str) -> bool:
    """Tell whether an address names a local file."""
    return url[:5].lower() == "file:"


def _read(url: str, folder: Path | None, max_bytes: int) -> Fetched:
    """Read a file:// address, whose root is `folder` and which cannot leave it."""
    if folder is None:
        return Fetched(None, "blocked", "file addresses are not allowed; see images.allow_file")
    try:
        root = folder.resolve()
        path = (root / unquote(urlsplit(url).path).lstrip("/")).resolve()
        if not path.is_relative_to(root):
            return Fetched(None, "blocked", "outside the dataset's folder")
        if not path.is_file():
            return Fetched(None, "unreachable", "no such file")
        if path.stat().st_size > max_bytes:
            return Fetched(None, "too_large", f"more than {max_bytes} bytes")
        return Fetched(path.read_bytes())
    except (OSError, ValueError) as e:  # a name that no file can have
        return Fetched(None, "unreachable", getattr(e, "strerror", None) or "not a file name")


def table(item_ids: pa.ChunkedArray, asins: pa.ChunkedArray, results: list[Result]) -> pa.Table:
    """Return results as a table of schema IMAGES."""
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
    return pa.table({"item_id": item_ids, "asin": asins} | made)
