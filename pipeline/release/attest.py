"""Recompute rows of a release from their inputs, and compare texts and images by SHA-256, vectors by cosine."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release import encoder, item_file
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.loading import Loaded
from alignrec.pipeline.release.recipe import release_recipe
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

# minimum cosine between released and recomputed vectors; other hardware or batch sizes change only the last bits
AGREES = 0.999
BLOCK = 1024

Read = Callable[[set[str]], Iterable[item_file.Row]]  # reads some items of a dataset or file
Inputs = tuple[set[str], Read]  # the identifiers of all items, and their reader


def open_inputs(data: str, images: Path | None, root: Path, release: Path) -> Inputs:
    """Open a file of items with its image folder, or a dataset; UserError if `data` is neither."""
    layout = Layout(root, data)
    if Path(data).is_file():
        recipe = release_recipe(manifests.load(release))
        table = item_file.open_table(Path(data), images, recipe=recipe)

        def rows() -> Iterator[item_file.Row]:
            return (row for rows, _ in item_file.read_blocks(table) for row in rows)

        return {row.asin for row in rows()}, lambda wanted: (
            row for row in rows() if row.asin in wanted
        )
    if Path(data).name != data or not layout.items.is_file():
        raise UserError(f"'{data}': neither a file of items nor a dataset with items under {root}")

    def read(wanted: set[str]) -> Iterator[item_file.Row]:
        shards = sorted(layout.images.glob("images-*.parquet"))
        stored = {
            asin: image for path in shards for asin, image in _select_rows(path, wanted, "image")
        }
        texts = _select_rows(layout.items, wanted, "text")
        return (item_file.Row(asin, text, stored.get(asin), "ok", "") for asin, text in texts)

    return {*io.read_table(layout.items, schemas.ITEMS, ["asin"])["asin"].to_pylist()}, read


def _select_rows(path: Path, asins: set[str], column: str) -> Iterator[tuple[str, Any]]:
    table = pq.read_table(
        path, columns=["asin", column], filters=[("asin", "in", asins)], partitioning=None
    )
    return zip(table["asin"].to_pylist(), table[column].to_pylist(), strict=True)


def attest(release: Path, data: Inputs, sample: int, names: Sequence[str] = ()) -> dict[str, Any]:
    """Recompute rows of a verified release, `sample` of those that `data` covers, and compare them.

    Equal inputs give equal rows. UserError if the release has no encoder (of `names`, by default all), or no item in
    common with the data. Returns whether it `agrees`, counts, `unattested` feature sets, and `rows` with cosines.
    """
    shelf = encoder.ReleasedEncoders(release)
    available = shelf.names
    loaded = shelf.load_all(names or available)
    if not loaded:
        raise UserError(
            f"{release}: this release carries no encoder; publish it again with this alignrec"
        )
    columns = ["asin", "input_text_sha256", "input_image_sha256"]
    items = io.read_table(release / "items.parquet", schemas.RELEASED_ITEMS, columns)
    there, read = data
    covered = [i for i, asin in enumerate(items["asin"].to_pylist()) if asin in there]
    if not covered:
        raise UserError(
            f"the data has none of the items of {release}; items are matched by identifier (asin)"
        )
    rng = np.random.default_rng(seed_for("attest", io.sha256(release / manifests.NAME)))
    chosen = sorted(rng.choice(covered, min(sample, len(covered)), replace=False))
    blocks = [chosen[first : first + BLOCK] for first in range(0, len(chosen), BLOCK)]
    rows = [
        row for at in blocks for row in _recompute_rows(release, loaded, items.take(at), read, at)
    ]
    return {
        "agrees": not any(map(_list_differences, rows)),
        "items": len(items),
        "covered": len(covered),
        "unattested": [
            name for name in shelf.manifest.sets_with("features") if name not in available
        ],
        "rows": rows,
    }


def _recompute_rows(
    release: Path, loaded: Mapping[str, Loaded], items: pa.Table, read: Read, at: Sequence[int]
) -> list[dict[str, Any]]:
    from alignrec.pipeline.images.decode import normalise_image  # loads torch

    asins, texts_before, images_before = (column.to_pylist() for column in items.columns)
    found = {item.asin: item for item in read({*asins})}
    facts = next(
        iter(loaded.values())
    ).facts  # all feature sets have the same image size and quality
    texts, images = [found[asin].text for asin in asins], []
    for asin, released in zip(asins, images_before, strict=True):
        image = found[asin].read_image(Images().max_bytes)
        # an original file may equal the released bytes after normalisation
        if image is not None and encoder.image_sha256(image) != released:
            image = normalise_image(
                image, facts.image_size, facts.image_quality, Images().max_pixels
            ).image
        images.append(image)
    cosines: dict[str, np.ndarray] = {}
    for name, network in loaded.items():
        paths, chosen = io.shards(release / "features" / name, "features"), [("item_id", "in", at)]
        tables = [
            pq.read_table(path, columns=["vector"], filters=chosen, partitioning=None)
            for path in paths
        ]
        x, directed = unit_rows(encoder.encode_items(network, texts, images))
        y, there = unit_rows(io.matrix(pa.concat_tables(tables)["vector"]))
        # two zero vectors agree
        cosines[name] = np.where(
            directed | there, np.einsum("nf,nf->n", x, y, dtype=np.float64), 1.0
        )
    return [
        {
            "asin": asin,
            "text": encoder.text_sha256(texts[n]) == texts_before[n],
            "image": encoder.image_sha256(images[n]) == images_before[n],
            "cosines": {name: float(values[n]) for name, values in cosines.items()},
        }
        for n, asin in enumerate(asins)
    ]


def _list_differences(row: Mapping[str, Any]) -> list[str]:
    agree = {
        "text": row["text"],
        "image": row["image"],
        "vector": min(row["cosines"].values()) >= AGREES,
    }
    return [what for what, agrees in agree.items() if not agrees]


def describe_outcome(outcome: Mapping[str, Any], release: Path) -> Iterator[str]:
    rows, agree = outcome["rows"], {True: "agrees", False: "DIFFERS"}
    for row in rows:
        parts = [f"{what} {agree[row[what]]}" for what in ("text", "image")]
        parts += [
            f"{name} {agree[x >= AGREES]} (cosine {x:.5f})" for name, x in row["cosines"].items()
        ]
        yield printable(f"{row['asin']}: {', '.join(parts)}")
    if outcome["covered"] < outcome["items"]:
        yield f"the data has {outcome['covered']:,} of the release's {outcome['items']:,} items"
    if outcome["unattested"]:
        yield f"not attested, their encoder is not in the release: {', '.join(outcome['unattested'])}"
    lowest = (
        f"lowest cosine {min(cosine for row in rows for cosine in row['cosines'].values()):.5f}"
    )
    if outcome["agrees"]:
        yield f"{release}: attested; text, image and vector of {len(rows)} rows agree, {lowest}"
        return
    bad = [differing for row in rows if (differing := _list_differences(row))]
    counts = {
        what: sum(what in differing for differing in bad) for what in ("text", "image", "vector")
    }
    found = ", ".join(f"{what} of {n}" for what, n in counts.items() if n)
    yield f"{release}: NOT attested; {len(bad)} of {len(rows)} rows differ ({found}), {lowest}"
