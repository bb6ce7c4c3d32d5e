"""Page of two releases: what changed, and the most changed items with their neighbours."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from alignrec.pipeline.release.diff import (
    DIFFERENCE_PARTS,
    Difference,
    changed_only,
    common_rows,
    describe_verdict,
    number_items,
    read_versions,
    summarise_diff,
)
from alignrec.pipeline.release.read import ITEMS_FILE
from alignrec.pipeline.report.gallery import stored_pictures
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import PageSection
from alignrec.pipeline.report.similarity import changed_items
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.report.verdict import format_overlap

MAX_SHOWN_ITEMS = 100


def render_changes(a: Path, b: Path, diff: Difference, images: Path, kind: str) -> str:
    columns = ["asin", "title", "categories", "image_sha256"]
    items_a = pq.read_table(a / ITEMS_FILE, columns=columns)
    items_b = pq.read_table(b / ITEMS_FILE, columns=columns)
    common = common_rows(items_a, items_b)
    items = items_b.take([row for _, row in common])
    row_of = number_items(items)

    pairs = []
    for name, similarity in diff["features"].items():
        most = [(row_of[item["asin"]], item["overlap"]) for item in changed_only(similarity)]
        if most:
            old, new = read_versions(a, b, name, common)
            old = replace(old, name=f"{name} before ({diff['a']['version']})")
            new = replace(new, name=f"{name} after ({diff['b']['version']})")
            pairs.append(changed_items(old, new, most))

    dataset = diff["b"]["dataset"]
    tables = [_items_table(diff), _features_table(diff), _contents_table(diff)]
    return compared_page(
        "diff",
        dataset,
        " ".join(_sentence(text) for text in (summarise_diff(diff), describe_verdict(diff))),
        [PageSection("what", "What changed", "What changed", tables=tables)],
        kind=kind,
        title=_title(diff),
        pairs=pairs,
        items=items,
        images=stored_pictures(images, items, row_of),
        imageless=f"No images: {images.name} has none here, and releases hold addresses only.",
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _title(diff: Difference) -> str:
    dataset = diff["b"]["dataset"]
    older, newer = diff["a"]["version"], diff["b"]["version"]
    if older == newer:
        return f"{dataset}: two releases called {older}"
    return f"{dataset} {older} and {newer}"


def _items_table(diff: Difference) -> Table:
    rows = [[what, f"{len(asins):,}", ", ".join(asins[:MAX_SHOWN_ITEMS])]
            for what, asins in diff["items"].items()]  # fmt: skip
    missing = [diff[side]["without_image"] for side in ("a", "b")]
    rows.append(["without image", f"{missing[0]:,} -> {missing[1]:,}", ""])
    note = "Changed: another text or image than in the older release."
    return Table("Items", note, ["items", "number", "which"], rows, texts=3)


def _contents_table(diff: Difference) -> Table:
    rows = []
    for part in DIFFERENCE_PARTS:
        rows += [[part, line] for line in diff[part] or ["the same"]]
    return Table("Contents", "", ["part", "difference"], rows, texts=2)


def _features_table(diff: Difference) -> Table:
    rows = []
    for name, similarity in diff["features"].items():
        change = "turned" if similarity["turned"] else similarity["bump"]
        row = [name, change, format_overlap(similarity)]
        row += [f"{similarity['neighbours_changed']:.1%}", f"{similarity['cka']:.4f}"]
        cosines = [similarity.get(key) for key in ("cosine", "rotated_cosine")]
        row += ["" if cosine is None else f"{cosine:.3f}" for cosine in cosines]
        for figure in ("effective_rank", "mean_cosine", "norm"):
            shapes = [similarity.get(side) for side in ("a", "b")]
            row += ["" if shape is None else f"{shape[figure]:.3f}" for shape in shapes]
        rows.append(row)

    head = ["feature set", "change", "neighbours shared", "items with others", "linear CKA"]
    head += ["own cosine", "rotated", "rank before", "after", "cosine before", "after"]
    head += ["norm before", "after"]
    note = (
        "Of the common items. Change: what the similarity calls for, by semantic versioning, or "
        "turned, if mostly the axes are others. Own cosine: of an item's old and new vector; "
        "rotated: after the rotation that brings them nearest. Rank: number of directions in use. "
        "Cosine: the mean over pairs of items. Norm: the median. None of them is computed where "
        "the vectors are the same."
    )
    return Table("Features", note, head, rows, texts=2)
