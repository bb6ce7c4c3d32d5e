"""Image addresses -> images or reasons, a row an item.

The result depends on what the addresses answer, never on the order in which answers come.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch

import schemas
from pipeline import engine, io
from pipeline.errors import UserError, one_line
from pipeline.http.web import Client, Policy
from pipeline.images.decode import Decoded, Room, failed, normalise_all
from pipeline.images.files import Files
from pipeline.images.params import Images
from pipeline.sources.database import connected
from pipeline.sources.product import is_path

WINDOW = 64  # items under way at a time; bounds memory
BATCH = 16  # images that a decoder takes at a time, at most
CANDIDATES = 32  # addresses tried for an item, at most: one record may name a hundred thousand
NO_ADDRESS = "no address in the metadata"
BLOCK = 1024  # items between two saves
NEAR = 4  # bits of 64 by which hashes of one image differ at most after resizing and recompressing
# names of Amazon's "no image available" files
PLACEHOLDER = re.compile(r"/(no-img|no-image|no_image|noimage|01RmK%2BJ4pJL|01RmK\+J4pJL)[-._]", re.IGNORECASE)


class Result(NamedTuple):
    """The outcome of one item, and the address that gave it."""

    decoded: Decoded
    url: str


class Outcome(NamedTuple):
    """How fetching an item ended in an earlier run."""

    status: str
    url: str


Keep = Callable[[Outcome, list[str]], bool]  # (outcome, the item's present addresses) -> whether it stays


class Fetcher:
    """Fetches and normalises images; keeps connections and the state of hosts from call to call.

    One thread fetches; a thread a core decodes, taking several images at a time from a queue. Pillow decodes,
    shrinks and encodes without holding Python's lock: processes were slower.
    """

    def __init__(self, params: Images, files: Files) -> None:
        self.params, self.files = params, files
        self._web = Client(Policy(**{name: getattr(params, name) for name in Policy._fields}))
        self._known_sha256 = {known for known in params.placeholders if len(known) == 64}
        self._known_phashes = [int(known, 16) for known in params.placeholders if len(known) == 16]
        self._open = ExitStack()
        self._decoders = self._open.enter_context(engine.Threads().opened(lambda: self._normalised))
        self._room = Room(params.max_pixels)
        self._normalise = partial(normalise_all, size=params.size, quality=params.quality, max_pixels=params.max_pixels)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._web.close())
        self._runner.close()
        self._open.close()

    def fetch(self, candidates: list[list[str]], done: Callable[[int], object] = lambda n: None) -> list[Result]:
        """Return one result an item, in order; `done` is told how many.

        Of addresses, best first, the first of CANDIDATES that gives an image counts; if none does, the first's
        failure.
        """
        return self._runner.run(self._all(candidates, done))

    async def _all(self, candidates: list[list[str]], done: Callable[[int], object]) -> list[Result]:
        results = [Result(failed("missing", NO_ADDRESS), "")] * len(candidates)
        todo = iter(range(len(candidates)))
        self._fetched: asyncio.Queue[tuple[bytes, asyncio.Future[Decoded]]] = asyncio.Queue()
        decoders = [asyncio.create_task(self._decode()) for _ in range(self._decoders.number)]

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
        while True:
            batch = [await self._fetched.get()]
            while len(batch) < BATCH and not self._fetched.empty():
                batch.append(self._fetched.get_nowait())
            try:
                results = await asyncio.wrap_future(self._decoders.submit([data for data, _ in batch]))
            except MemoryError:
                for data, future in batch:  # while no other is decoded: there was too little memory for several
                    await self._decode_alone(data, future)
            except Exception as e:
                for _, future in batch:
                    future.set_exception(e)
            else:
                for (_, future), decoded in zip(batch, results, strict=True):
                    future.set_result(decoded)

    async def _decode_alone(self, data: bytes, future: asyncio.Future[Decoded]) -> None:
        try:
            future.set_result(await asyncio.wrap_future(self._decoders.submit(data)))
        except MemoryError as e:
            future.set_exception(e)

    def _normalised(self, job: list[bytes] | bytes) -> Any:
        torch.set_num_threads(1)  # of this thread; torch would start more in each
        if isinstance(job, list):
            return self._normalise(job, room=self._room)
        with self._room.taken():
            return self._normalise([job])[0]

    async def _item(self, urls: list[str]) -> Result:
        first: Result | None = None
        for url in urls[:CANDIDATES]:
            result = Result(await self._one(url), url)
            if result.decoded.status == "ok":
                return result
            first = first or result
        assert first is not None
        if len(urls) > CANDIDATES:
            reason = f"{first.decoded.reason}; only the first {CANDIDATES} of {len(urls)} addresses were tried"
            return first._replace(decoded=first.decoded._replace(reason=reason))
        return first

    async def _one(self, url: str) -> Decoded:
        if PLACEHOLDER.search(url):
            return failed("placeholder", "the address is that of a file for 'no image available'")
        fetched = self.files.read(url, self.params.max_bytes) if is_path(url) else await self._web.get(url)
        if fetched.data is None:
            return failed(fetched.status, fetched.reason)
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._fetched.put_nowait((fetched.data, future))
        try:
            decoded = await future
        except MemoryError:
            raise UserError(
                f"{one_line(url)}: not enough memory to decode this image, alone; give more, or lower images.max_pixels"
            ) from None
        if self._is_placeholder(decoded):
            return failed("placeholder", "one of images.placeholders", decoded.sha256)
        return decoded

    def _is_placeholder(self, decoded: Decoded) -> bool:
        phash = decoded.phash
        return decoded.sha256 in self._known_sha256 or (
            phash is not None and any((phash ^ other).bit_count() <= NEAR for other in self._known_phashes)
        )


def shard(
    fetcher: Fetcher,
    items: pa.Table,
    work: Path,
    done: Callable[[int], object],
    before: Iterable[pa.Table] = (),
    keep: Keep = lambda row, urls: True,
) -> Iterator[pa.Table]:
    """Yield a shard's images, schema IMAGES, block by block, so that a killed run loses one block at most.

    Finished blocks are kept in `work`, not needed once the shard is written. Rows of `before`, what an earlier run
    yielded, stay where `keep` says so. `done` is told numbers of items.
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
    before = map(Outcome, old["status"].to_pylist(), old["url"].to_pylist())
    again = np.flatnonzero([not keep(row, urls) for row, urls in zip(before, candidates, strict=True)])
    done(len(items) - len(again))
    fresh = table(items.take(again), fetcher.fetch([candidates[i] for i in again], done))
    place = np.arange(len(items))
    place[again] = len(items) + np.arange(len(again))
    return pa.concat_tables([old, fresh.select(old.column_names).cast(old.schema)]).take(place)


def succeeded(row: Outcome, urls: list[str]) -> bool:
    return row.status in ("ok", "missing")


def unchanged(row: Outcome, urls: list[str]) -> bool:
    return row.status == "ok" and urls[:1] == [row.url] and not any(map(is_path, urls))


def duplicates(images: Iterable[pa.Table], above: int) -> dict[str, object]:
    """Count images that several items share, of url, sha256 and phash of every item, a table at a time.

    duplicates are items whose bytes an earlier item has, near_duplicates others of equal phash, and shared the
    images of more than `above` items, most frequent first: likely placeholders, for images.placeholders if they
    are.
    """
    kind = pa.schema([schemas.IMAGES.field(name).remove_metadata() for name in ("url", "sha256", "phash")])
    batches = (batch for table in images for batch in table.select(kind.names).cast(kind).to_batches())
    with connected() as db:
        db.register("fetched", pa.RecordBatchReader.from_batches(kind, batches))
        db.execute(
            "CREATE TABLE images AS SELECT sha256, count(*) AS items, min(url) AS url, min(phash) AS phash "
            "FROM fetched WHERE sha256 <> '' GROUP BY sha256"
        )
        counts = "coalesce(sum(items), 0)::BIGINT - count(*), count(phash) - count(DISTINCT phash)"
        (same, near), *_ = db.execute(f"SELECT {counts} FROM images").fetchall()
        many = f"SELECT sha256, items, url FROM images WHERE items > {above:d} ORDER BY items DESC, sha256"
        return {"duplicates": same, "near_duplicates": near, "shared": db.sql(many).to_arrow_table().to_pylist()}


def table(items: pa.Table, results: list[Result]) -> pa.Table:
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
