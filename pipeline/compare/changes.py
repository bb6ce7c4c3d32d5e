"""A page of the differences of two releases, and their most changed items with images."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.compare import page, releases
from pipeline.facts import chips
from pipeline.facts.chips import Chip
from pipeline.facts.comparison import shared
from pipeline.facts.table import Table
from pipeline.facts.words import title
from pipeline.report import plots
from pipeline.report.page import render
from pipeline.report.plots import Section

LINES = 5
"""differences that a chip names"""


def html(a: Path, b: Path, diff: dict[str, Any], images: Path, kind: str) -> str:
    """Return the differences of the older release `a` and the newer `b` as a page, with the most changed items.

    Args:
        images: folder of the images stage; those are used whose sha256 the newer release names. May be absent.
        kind: of the dataset's source; the images of `sample` need an attribution.
    """
    columns = ["asin", "title", "categories", "image_sha256"]
    items_a, items_b = (pq.read_table(f / "items.parquet", columns=columns) for f in (a, b))
    common = releases.common_rows(items_a, items_b)
    items = items_b.take([j for _, j in common])
    at = {asin: i for i, asin in enumerate(items["asin"].to_pylist())}
    pairs = []
    for name, f in diff["features"].items():
        changed = [(at[e["asin"]], e["overlap"]) for e in f["most_changed"] if e["overlap"] < 1]
        if changed:
            old, new = releases.versions(a, b, name, common)
            old = replace(old, name=f"{name} before ({diff['a']['version']})")
            new = replace(new, name=f"{name} after ({diff['b']['version']})")
            pairs.append(page.changed(old, new, changed))
    packed, data = page.with_images(pairs, items, pictures(images, items, at))
    missing = "" if packed.data else f"No images: {images.name} has none here, and releases hold addresses only."
    parts = [Section("what", "What changed", "What changed", tables=_tables(diff))]
    dataset = diff["b"]["dataset"]
    return render(
        "compared.html", packed, what="difference", command="diff", dataset=dataset, kind=kind,
        title=f"{dataset} {diff['a']['version']} and {diff['b']['version']}", lead=releases.verdict(diff),
        parts=parts, data=data, pairs=pairs, note=missing, chips=claims(diff), verdict=[], plot=plots,
    )  # fmt: skip


def claims(diff: dict[str, Any]) -> list[Chip]:
    """Return the differences at a glance: what became of schema, rows and values, and of each feature set."""
    said = []
    for part in ("schema", "rows", "values"):
        lines = diff[part]
        outcome = chips.WORSE if part == "schema" and lines else chips.LEVEL
        what = f"{len(lines)} change{'s' * (len(lines) > 1)}" if lines else "the same"
        said.append(Chip(f"{part}: {what}", outcome, "; ".join(lines[:LINES]) or f"{part} are the same"))
    for name, f in diff["features"].items():
        outcome = {"none": chips.BETTER, "major": chips.WORSE}.get(f["bump"], chips.LEVEL)
        detail = f"{f['overlap']:.1%} of neighbours shared, CKA {f['cka']:.4f}"
        said.append(Chip(f"{title(name)}: {releases.change(f['bump'])}", outcome, detail))
    for name, c in diff["semantic_ids"].items():
        said.append(
            Chip(f"codes {name}: {c['changed']:,} of {c['items']:,} changed", chips.LEVEL, "items with another ID")
        )
    return said


def _tables(diff: dict[str, Any]) -> list[Table]:
    parts = [[part, line] for part in ("schema", "rows", "values") for line in diff[part] or ["the same"]]
    rows = [
        [name, f["bump"], shared(f), f"{f['cka']:.4f}"]
        + ["" if f["cosine"] is None else f"{f['cosine']:.3f}"]
        + [
            f"{f[which][figure]:.3f}" if which in f else ""
            for figure in ("effective_rank", "mean_cosine")
            for which in ("a", "b")
        ]
        for name, f in diff["features"].items()
    ]
    head = ["feature set", "change", "neighbours shared", "linear CKA", "own cosine"]
    head += ["rank before", "after", "cosine before", "after"]
    note = (
        "Of the common items. Change: what the similarity calls for, by semantic versioning. Own cosine: of an item's "
        "old and new vector. Rank: number of directions in use. Cosine: the mean over pairs of items. "
        "Neither is computed where the vectors are the same."
    )
    return [Table("Contents", "", ["part", "difference"], parts, texts=2), Table("Features", note, head, rows, texts=2)]


def pictures(images: Path, items: pa.Table, at: dict[str, int]) -> Iterator[pa.Table]:
    """Yield row of `items` as item_id, and image, of images with the hash that `items` names.

    Args:
        images: folder of the images stage; may be absent.
        at: identifier -> row of `items`.
    """
    hashes = items["image_sha256"].to_pylist()
    for path in sorted(images.glob("images-*.parquet")):
        table = io.read_table(path, schemas.IMAGES, ["asin", "sha256", "image"])
        rows = [at.get(asin, -1) for asin in table["asin"].to_pylist()]
        matching = [i >= 0 and hashes[i] == sha256 for i, sha256 in zip(rows, table["sha256"].to_pylist(), strict=True)]
        yield pa.table({"item_id": pa.array(rows, pa.int32()), "image": table["image"]}).filter(pa.array(matching))
