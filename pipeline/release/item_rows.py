"""The item table of a release."""

from collections.abc import Iterator

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.release import catalogue
from alignrec.pipeline.release.encoder import hash_images, text_sha256
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.source import Shown
from alignrec.pipeline.sources.base import is_web

BEYOND_TITLES = ("brand", "description", "text", "image_url")
BLANKED_COLUMNS: dict[Shown, tuple[str, ...]] = {  # by publish.texts
    "all": (),
    "titles": BEYOND_TITLES,
    "none": ("title", *BEYOND_TITLES),
}


def read_released_items(layout: Layout, publish: Publish) -> Iterator[pa.Table]:
    for table, images in catalogue.list_items(layout):
        if not images:
            for items in io.read_tables(table, schemas.ITEMS):
                yield _release_items(items, _without_images(items), publish)

        first = 0
        for path in images:
            hashed = hash_images(path, ["status", "url", "sha256"])
            n = len(hashed)
            items = io.read_rows(table, schemas.ITEMS, schemas.ITEMS.names, first, n)
            first += n
            yield _release_items(items, hashed, publish)


def _without_images(items: pa.Table) -> pa.Table:
    """Return the columns of `hash_images` for items whose images were not fetched."""
    n = len(items)
    blank = pa.array([""] * n, pa.string())
    urls = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()]
    return pa.table(
        {
            "status": pa.nulls(n, pa.string()),
            "url": pa.array(urls, pa.string()),
            "sha256": blank,
            "input_image_sha256": blank,
        }
    )


def _release_items(items: pa.Table, images: pa.Table, publish: Publish) -> pa.Table:
    """Return n items in schema RELEASED_ITEMS, with BLANKED_COLUMNS blank."""
    urls = [url if is_web(url) else "" for url in images["url"].to_pylist()]
    text_hashes = pa.array(map(text_sha256, items["text"].to_pylist()), pa.string())
    columns = {name: items[name] for name in items.column_names}
    columns |= {
        "image_status": images["status"],
        "image_sha256": images["sha256"],
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array(urls, pa.string()),
        "input_text_sha256": text_hashes,
    }

    n = len(items)
    blank = pa.array([""] * n, pa.string())
    columns |= dict.fromkeys(BLANKED_COLUMNS[publish.texts or "all"], blank)
    if publish.texts == "none":
        kind = schemas.RELEASED_ITEMS.field("categories").type
        columns["categories"] = pa.array([[]] * n, kind)
    return pa.table({name: columns[name] for name in schemas.RELEASED_ITEMS.names})
