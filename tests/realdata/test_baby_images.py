"""A third of Baby's 7,050 image addresses, and all odd ones, from a mirror here that fails where it is told to."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from webserver import Server, body, first, serving, status

import schemas
from pipeline.images import fetcher
from pipeline.images.files import Refused
from pipeline.images.params import Images

ADDRESSES = Path(__file__).parents[3] / "shared" / "data" / "baby_2014" / "item_urls.csv"
pytestmark = [
    pytest.mark.skipif(not ADDRESSES.is_file(), reason="../shared/data/baby_2014 is not next to the project"),
    pytest.mark.slow,
]


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 30)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def urls() -> list[str]:
    with ADDRESSES.open() as f:
        every = [row["imUrl"] for row in csv.DictReader(f)]
    return [url for n, url in enumerate(every) if n % 3 == 0 or "/I/" not in url]


@pytest.fixture(scope="module")
def mirror(urls: list[str]) -> Iterator[Server]:
    """Serve an image of its own under each path; of every hundred one is gone, busy, cut short and a web page."""
    answers = {}
    for i, path in enumerate(dict.fromkeys(urlsplit(url).path for url in urls if "/I/" in url)):
        good = body(jpeg(i))
        bad = (status(404), first(1, status(429), good), body(jpeg(i)[:-99]), body(b"<html>%d</html>" % i))
        answers[path] = bad[i % 100] if i % 100 < len(bad) else good
    with serving(answers) as server:
        yield server


def test_every_address_ends_with_one_status(urls: list[str], mirror: Server) -> None:
    mirrors = {f"{name}.images-amazon.com": mirror.address for name in ("ecx", "g-ecx")}
    params = Images(mirrors=mirrors, private_hosts=["127.0.0.1"], rate=10_000, retries=1)
    ids = pa.array(range(len(urls)), pa.int32())
    rows = pa.table({"item_id": ids, "asin": [f"A{i}" for i in range(len(urls))]})
    with fetcher.Fetcher(params, Refused("no files here")) as web:
        images = fetcher.table(rows, web.fetch([[url] if url else [] for url in urls]))
    schemas.check(images, schemas.IMAGES)
    assert images["url"].to_pylist() == urls
    bad = dict.fromkeys(("http_error", "truncated", "not_an_image"), 24) | {"missing": 13, "placeholder": 6}
    assert Counter(images["status"].to_pylist()) == {"ok": 2273} | bad
    assert set(images.filter(pc.field("status") == "http_error")["reason"].to_pylist()) == {"404"}
    assert fetcher.duplicates([images], above=2)["duplicates"] == 4
    assert len(mirror.answers) == 2341
