"""Export `atlas`: the report's map, neighbours and pictures for embedding-atlas.

Format: https://apple.github.io/embedding-atlas/tool.html (--x, --y, --neighbors, --image)
"""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export.content import ExportContent
from alignrec.pipeline.report import gallery
from alignrec.pipeline.runtime.layout import list_image_files

MISSING = -1  # fills up the neighbours of an item that has fewer than others
FARTHEST = 2.0  # cosine distance


def write_atlas(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    n_items = len(content.items)
    if n_items > gallery.MAX_MAPPED:
        raise UserError(
            f"{content.name}: {n_items:,} items, and a map has at most {gallery.MAX_MAPPED:,}; "
            "name those to export in a file for --order"
        )

    columns = {
        "id": content.items["asin"],
        "title": pa.array(gallery.item_titles(content.items), pa.string()),
        "category": pa.array(gallery.category_paths(content.items), pa.string()),
        "picture": _list_pictures(content),
    }
    for name in content.features:
        edges = content.edges[name]
        positions = gallery.map_positions(edges, n_items, 0)
        x, y = np.array(positions, np.float32).reshape(-1, 2).T
        columns["x"] = pa.array(x)
        columns["y"] = pa.array(gallery.MAP_HEIGHT - y)  # of the page, y grows downwards
        columns["neighbors"] = _list_neighbours(edges, n_items)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", **io.PARQUET)

    usage = f"""A file has the report's map and the graph of one feature set. `picture` is a \
thumbnail where the dataset has the image,
otherwise its address on the web, which the browser opens. `neighbors` are rows of the file, \
the item itself first; {MISSING} fills up
shorter lists, and the distance is 1 - cosine.

```bash
pip install embedding-atlas
embedding-atlas {content.first_set}.parquet --x x --y y --neighbors neighbors --text title \
--image picture
```
"""
    return usage, []


def _list_neighbours(edges: pa.Table, n_items: int) -> pa.Array:
    """Return a struct of `ids` and `distances` per item, itself first, then the nearest.

    All have the same length, which embedding-atlas needs.
    """
    edges = edges.sort_by([("item_id", "ascending"), ("rank", "ascending")])
    item = edges["item_id"].to_numpy()
    counts = np.bincount(item, minlength=n_items)
    place = np.arange(len(item)) - (np.cumsum(counts) - counts)[item]

    k = int(counts.max(initial=0))
    ids = np.full((n_items, k), MISSING, np.int32)
    distances = np.full((n_items, k), FARTHEST, np.float32)
    ids[item, place] = edges["neighbour_id"].to_numpy()
    distances[item, place] = np.maximum(1 - edges["cosine"].to_numpy(), 0)

    offsets = pa.array(np.arange(n_items + 1, dtype=np.int32) * k)
    lists = [pa.ListArray.from_arrays(offsets, pa.array(x.ravel())) for x in (ids, distances)]
    return pa.StructArray.from_arrays(lists, ["ids", "distances"])


def _list_pictures(content: ExportContent) -> pa.Array:
    """Return a data URI of a stored image, otherwise an address; null without either."""
    pictures = [address or None for address in content.items["image_url"].to_pylist()]
    thumbnails = gallery.make_thumbnails(_read_images(content), set(range(len(pictures))))
    for row, thumbnail in thumbnails.items():
        jpeg = BytesIO()
        thumbnail.save(jpeg, "JPEG", quality=gallery.JPEG_QUALITY)
        pictures[row] = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    return pa.array(pictures, pa.string())


def _read_images(content: ExportContent) -> Iterator[pa.Table]:
    """Yield the row of each exported item with a stored image, `item_id`, and the `image`."""
    asins = content.items["asin"].to_pylist()
    row_of = {asin: row for row, asin in enumerate(asins)}
    paths = list_image_files(content.images) if content.images else []
    for path in paths:
        table = io.read_table(path, schemas.IMAGES, ["asin", "image"])
        rows = [row_of.get(asin) for asin in table["asin"].to_pylist()]
        table = table.set_column(0, "item_id", pa.array(rows, pa.int32()))
        yield table.filter(table["item_id"].is_valid())
