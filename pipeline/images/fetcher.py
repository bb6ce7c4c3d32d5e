"""Image addresses -> images or reasons, a row per item, whatever the order in which answers come."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from alignrec import schemas
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.images.crawler import Crawler
from alignrec.pipeline.images.decode import Decoded, Room, normalise
from alignrec.pipeline.images.files import Files
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.sources.product import is_path
from alignrec.pipeline.sources.sql import connected

SHARED_ABOVE = 10  # an image of more items than this is listed in run.json: it may be a placeholder
WINDOW = 64  # items under way at a time; bounds memory
CANDIDATES = 32  # addresses tried for an item, at most: one record may name a hundred thousand
# names of Amazon's "no image available" files
PLACEHOLDER = re.compile(r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE)


class Result(NamedTuple):
    """The outcome of one item, and the address that gave it."""

    decoded: Decoded
    url: str


class Fetcher(ExitStack):
    """Fetches and normalises images in threads, as Pillow holds no lock of Python; keeps connections between calls."""

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
        return first or Result(Decoded("missing", "no address in the metadata"), "")

    def _one(self, url: str) -> Decoded:
        if PLACEHOLDER.search(url):
            return Decoded("placeholder", "the address is that of a file for 'no image available'")
        params = self.params
        fetched = self.files.read(url, params.max_bytes) if is_path(url) else self._web.get(url)
        if fetched.data is None:
            return Decoded(fetched.status, fetched.reason)
        try:
            decoded = normalise(fetched.data, params.size, params.quality, params.max_pixels, self._room)
        except MemoryError:
            raise UserError(
                f"{one_line(url)}: not enough memory to decode this image; give more, or lower images.max_pixels"
            ) from None
        if decoded.sha256 in self._placeholders:
            return Decoded("placeholder", "one of images.placeholders", sha256=decoded.sha256)
        return decoded


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
