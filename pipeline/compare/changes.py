"""Two releases side by side as a page: what changed, and the most changed items with their pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.compare import page, releases
from pipeline.report.page import render
from pipeline.report.tables import Table


def html(a: Path, b: Path, found: dict[str, Any], images: Path, kind: str) -> str:
    """Return the answer of releases.diff as a page, with the most changed items and their neighbours, before and after.

    Args:
        a: the older release folder.
        b: the newer.
        found: see releases.diff.
        images: folder of the images stage, for the pictures, which a release does not hold; they are shown where their
            bytes are those that the newer release names. May be absent.
        kind: of the dataset's source; the sample's pictures want their makers named.
    """
    columns = ["asin", "title", "categories", "image_sha256"]
    items_a, items_b = (pq.read_table(f / "items.parquet", columns=columns) for f in (a, b))
    common = releases.common_rows(items_a, items_b)
    items = items_b.take([j for _, j in common])
    at = {asin: i for i, asin in enumerate(items["asin"].to_pylist())}
    pairs = []
    for name, f in found["features"].items():
        shown = [(at[e["asin"]], e["overlap"]) for e in f["most_changed"] if e["overlap"] < 1]
        if shown:
            old, new = releases.versions(a, b, name, common)
            old = replace(old, name=f"{name} before ({found['a']['version']})")
            new = replace(new, name=f"{name} after ({found['b']['version']})")
            pairs.append(page.changed(old, new, shown))
    notes = [" › ".join(path) for path in items["categories"].to_pylist()]
    titles = [title or asin for asin, title in zip(at, items["title"].to_pylist(), strict=True)]
    packed, data = page.pictured(pairs, titles, notes, _pictures(images, items, at))
    missing = "" if packed.data else f"No pictures: {images.name} has no images here, and releases hold addresses only."
    return render(
        "diff.html", packed, dataset=found["b"]["dataset"], kind=kind, diff=found, verdict=releases.verdict(found),
        pairs=pairs, tables=_shown(found), data=data, no_images=missing,
    )  # fmt: skip


def _shown(found: dict[str, Any]) -> list[Table]:
    parts = [[part, line] for part in ("schema", "rows", "values") for line in found[part] or ["the same"]]
    rows = [
        [name, f"{f['overlap']:.1%}", f"{f['cka']:.4f}"]
        + [f"{f[which][figure]:.3f}" for figure in ("effective_rank", "mean_cosine") for which in ("a", "b")]
        for name, f in found["features"].items()
    ]
    head = ["feature set", "neighbours shared", "linear CKA", "rank before", "after", "cosine before", "after"]
    note = "Of the common items. Rank: how many directions are really used. Cosine: the mean over pairs of items."
    return [Table("Contents", "", ["part", "difference"], parts, texts=2), Table("Features", note, head, rows)]


def _pictures(images: Path, items: pa.Table, at: dict[str, int]) -> Iterator[pa.Table]:
    """Yield row of `items` as item_id, and image, of those whose bytes are known."""
    known = items["image_sha256"].to_pylist()
    for path in sorted(images.glob("images-*.parquet")):
        table = io.read_table(path, schemas.IMAGES, ["asin", "sha256", "image"])
        rows = [at.get(asin, -1) for asin in table["asin"].to_pylist()]
        same = [i >= 0 and known[i] == sha256 for i, sha256 in zip(rows, table["sha256"].to_pylist(), strict=True)]
        yield pa.table({"item_id": pa.array(rows, pa.int32()), "image": table["image"]}).filter(pa.array(same))
