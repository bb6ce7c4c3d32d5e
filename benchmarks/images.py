"""Addresses -> resized images in Parquet, next to a plain loop: fetch one, open, resize, save, next."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import requests
from PIL import Image

import schemas
from benchmarks import Measurement, _turns
from pipeline import memory
from pipeline.io import read_json, write_json, write_table
from pipeline.run import running
from stages import images
from stages.params import Params

COUNT, DISTINCT = 5_000, 200  # addresses, and distinct images behind them
SIZE, QUALITY = 256, 90
FILTER = Image.Resampling.BILINEAR
"""of the reference; the stage has the better bicubic, which would slow the reference more"""
RATE = 1e6  # requests a second: no limit


def run() -> Measurement:
    """Start the server in a process of its own, as a shop's would be; the ways take turns in processes of theirs."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there,), daemon=True)
    server.start()
    port, jpegs = here.recv()
    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(COUNT)]
    try:
        with _turns.process() as theirs, _turns.process() as ours:
            ways = _turns.take(
                {"loop": partial(theirs, _turn, loop, urls), "stage": partial(ours, _turn, stage, urls)}, work=COUNT
            )
    finally:
        server.terminate()
        server.join()
    cores = os.cpu_count() or 1
    return Measurement(
        ways=ways,
        ours="stage",
        reference="loop",
        unit="images/s",
        higher_is_better=True,
        limit=_decoding(jpegs, cores),
        limit_is=f"libjpeg-turbo decoding the same images in memory on {cores} cores, and nothing else",
        what=f"{COUNT:,} JPEGs of about 500 x 500 from a server on the same cores -> shorter side {SIZE}, JPEG, "
        "hashes, Parquet; the reference fetches by one requests session and has Pillow open, resize and save",
        details={f"{name}_peak_mib": way.last for name, way in ways.items()},
    )


def stage(urls: list[str], folder: Path) -> None:
    """Run the stage as `alignrec images` does; rate limits are lifted, as they would measure themselves."""
    params = Params.model_validate(
        {
            "datasets": ["shop"],
            "sources": {"shop": {"kind": "sample"}},
            "images": {"size": SIZE, "quality": QUALITY, "private_hosts": ["127.0.0.1"], "rate": RATE},
        }
    )
    with running("images", "shop", params, folder) as run:
        write_table(_items(urls), run.layout.items, schemas.ITEMS)
        write_json(run.layout.sources, [])
        images.main(run)
    record = read_json(folder / "images" / "shop" / "run.json")
    assert record["rows_out"] == len(urls), record["drops"]


def loop(urls: list[str], folder: Path) -> None:
    """Do one after the other, at the size and the quality of the stage."""
    with requests.Session() as session:
        for i, url in enumerate(urls):
            image = Image.open(io.BytesIO(session.get(url, timeout=20).content)).convert("RGB")
            scale = SIZE / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), FILTER)
            image.save(folder / f"{i}.jpg", quality=QUALITY)


def _items(urls: list[str]) -> pa.Table:
    """Return an item table with only image addresses."""
    known = {"item_id": range(len(urls)), "asin": [f"B{i:09d}" for i in range(len(urls))]}
    known |= {"image_urls": [[url] for url in urls], "text_status": ["empty"] * len(urls)}
    blank = {"string": "", "int32": 0}
    columns = {f.name: known.get(f.name, [blank.get(str(f.type), [])] * len(urls)) for f in schemas.ITEMS}
    return pa.table({name: pa.array(columns[name], schemas.ITEMS.field(name).type) for name in columns})


def _turn(work: Callable[[list[str], Path], None], urls: list[str]) -> _turns.Turn[int]:
    """Do `work` in a new folder; the result is the peak MiB of this process."""
    with tempfile.TemporaryDirectory() as folder:
        return _turns.timed(work, urls, Path(folder)).giving(memory.peak_mib())


def _decoding(jpegs: list[bytes], cores: int) -> float:
    """Return images a second that libjpeg-turbo decodes, a thread a core; it works without Python's lock."""
    many = jpegs * 10
    started = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        for _ in pool.map(lambda data: Image.open(io.BytesIO(data)).load(), many):
            pass
    return len(many) / (time.perf_counter() - started)


# --- the server


def serve(ready: multiprocessing.connection.Connection) -> None:
    """Answer /<number>.jpg with one of the images until terminated; send the port and the images."""
    jpegs = [_jpeg(seed) for seed in range(DISTINCT)]
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    answers = [head.format(len(p)).encode() + p for p in jpegs]

    async def main() -> None:
        listening = await asyncio.get_running_loop().create_server(lambda: _Server(answers), "127.0.0.1", 0)
        ready.send((listening.sockets[0].getsockname()[1], jpegs))
        await listening.serve_forever()

    asyncio.run(main())


class _Server(asyncio.Protocol):
    """The least that keep-alive clients need: a real server would leave less of two cores to both sides."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers, self.begun = answers, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self.begun = (self.begun + data).split(b"\r\n\r\n")
        for request in requests:
            number = int(request.removeprefix(b"GET /").split(b".", 1)[0])
            self.transport.write(self.answers[number % len(self.answers)])


def _jpeg(seed: int) -> bytes:
    """Return something like a photograph: detail at every scale, cut out on white, about 30 kB."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(480, 521, 2)
    photo = np.full((height, width, 3), 128, np.float32)
    for cells, strength in ((4, 90), (12, 45), (40, 22), (120, 10), (250, 5)):
        grey, colour = rng.normal(0, strength, (cells, cells, 1)), rng.normal(0, strength / 3, (cells, cells, 3))
        for c, plane in enumerate(np.moveaxis((grey + colour).astype(np.float32), 2, 0)):
            photo[..., c] += np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    photo[x**2 + y**2 > 0.7] = 255
    out = io.BytesIO()
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()
