"""Draw the README's picture of items and their neighbours: `make figures`.

python -m benchmarks._neighbours docs/neighbours.png sample linear beit3 shuffled [--root outputs]
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.report.gallery import (
    BACKGROUND,
    CELL,
    item_titles,
    make_thumbnails,
    pick_neighbours,
)
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import require_known

ITEMS = 6
NEAR = 4  # neighbours of an item
SEED = 0  # of the items; the report draws its gallery likewise
GAP = 10  # pixels between images
SPACE = 40  # pixels between feature sets
MARGIN = 20
HEADING = 40  # pixels
TEXT_SIZE = 20
TITLE_SIZE = 12
LINE = 11  # characters of a title per line
LINES = 4
TEXT = (70, 70, 80)
WITHOUT_IMAGE = (240, 240, 243)
FRAME = (90, 110, 200)
COLOURS = 128  # of the palette: the file stays below 200 kB
FEATURES = "features"  # key of the PNG's text that names the feature sets


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="neighbours", description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("features", nargs="+")
    parser.add_argument("--root", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)

    try:
        picture = draw_neighbours(Outputs(Layout(options.root, options.dataset)), options.features)
    except (FileNotFoundError, UserError) as e:
        print(f"{options.picture}: unchanged: {e}", file=sys.stderr)
        return

    io.write_bytes(options.picture, encode_png(picture, options.features))


def draw_neighbours(outputs: Outputs, features: Sequence[str]) -> Image.Image:
    """Draw a row per item: the item, then its nearest neighbours under each feature set."""
    if outputs.graphs:
        require_known(features, outputs.graphs, "features")
    near = pick_neighbours(outputs, ITEMS, SEED, features)
    if near is None or outputs.items is None:
        raise UserError("no items with neighbours; run `dvc repro graph` first")

    columns = [{item: [item] for item in near.items}]
    for name in features:
        neighbours = near.sets[name]
        columns.append({item: neighbours.get(item, [])[:NEAR] for item in near.items})
    shown = {item for column in columns for row in column.values() for item in row}

    cells = draw_cells(outputs.images("image"), item_titles(outputs.items), shown)
    return arrange_cells(cells, ["item", *features], columns)


def draw_cells(
    images: Iterable[pa.Table], titles: Sequence[str], items: set[int]
) -> dict[int, Image.Image]:
    """Return item_id -> its image, or its title on grey."""
    cells = make_thumbnails(images, items)
    for item in items - cells.keys():
        cells[item] = Image.new("RGB", (CELL, CELL), WITHOUT_IMAGE)
        title = textwrap.fill(titles[item], LINE, max_lines=LINES)
        font = ImageFont.load_default(TITLE_SIZE)
        ImageDraw.Draw(cells[item]).multiline_text((4, 4), title, TEXT, font)

    return cells


def arrange_cells(
    cells: dict[int, Image.Image], headings: Sequence[str], columns: Sequence[dict[int, list[int]]]
) -> Image.Image:
    """Draw headed columns; a column has a list of items per row, and the first frames its items."""
    step = CELL + GAP
    widths = [CELL] + [NEAR * step - GAP] * (len(columns) - 1)
    lefts = [MARGIN + n * SPACE + sum(widths[:n]) for n in range(len(columns))]
    tops = [MARGIN + HEADING + n * step for n in range(len(columns[0]))]
    size = (lefts[-1] + widths[-1] + MARGIN, tops[-1] + CELL + MARGIN)

    picture = Image.new("RGB", size, BACKGROUND)
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(TEXT_SIZE)
    for left, heading, column in zip(lefts, headings, columns, strict=True):
        canvas.text((left, MARGIN), heading, TEXT, font)
        for top, row in zip(tops, column.values(), strict=True):
            for place, item in enumerate(row):
                picture.paste(cells[item], (left + place * step, top))
    for top in tops:
        canvas.rectangle((MARGIN, top, MARGIN + CELL - 1, top + CELL - 1), outline=FRAME, width=2)

    return picture


def encode_png(picture: Image.Image, features: Sequence[str]) -> bytes:
    """Encode with a palette and without dithering, which keeps the file small; the text names the feature sets."""
    text = PngInfo()
    text.add_text(FEATURES, " ".join(features))
    out = BytesIO()
    flat = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    flat.save(out, "PNG", optimize=True, pnginfo=text)
    return out.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
