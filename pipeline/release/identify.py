"""Find which recipe of an encoder made third-party vectors: `alignrec compare --of`.

n items, F width of the vectors in question, W width of a candidate, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.registry import ENCODERS, Encoders, find_network
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release.attest import MIN_COSINE, open_dataset
from alignrec.pipeline.release.item_file import ItemRow
from alignrec.pipeline.release.variants import (
    BOTH,
    IMAGE,
    TEXT,
    Content,
    EncodedPart,
    encode_variants,
)
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

SAMPLED_ITEMS = 50
DRAWN_ITEMS = 4 * SAMPLED_ITEMS  # the shortest of them are used, as long texts may be cut
MIN_SAMPLED_ITEMS = 3
MIN_WIDTH = 2  # with one column, every cosine is 1 or -1
MIN_SHARE = 0.9  # of the items, which agree if a recipe does
# largest distance of equal vectors, as a share of the mean distance between different items: in a
# narrow cone or with few columns, all cosines are high
MAX_DISTANCE = 0.1
EQUAL_WITHIN = 1e-5  # largest difference in cosine of recipes that count as one
LENGTH_WITHIN = 1e-3  # largest relative difference of equal lengths
SHOWN_RECIPES = 12
UNIT, RAW = "length 1", "unscaled"  # parts before they are joined


class RecipeCandidate(NamedTuple):
    """A way to make vectors of n items."""

    content: str
    pooling: str
    prompt: str  # empty: none
    parts: str  # how they are scaled before they are joined; empty for a single one
    columns: str
    vectors: np.ndarray  # float32 [n, F]


@dataclass(frozen=True)
class JudgedRecipe:
    """A candidate, and how near it is to the vectors in question."""

    made: RecipeCandidate
    cosines: np.ndarray  # float64 [n]
    agrees: np.ndarray  # bool [n]
    lengths: str  # of the vectors in question

    @property
    def is_found(self) -> bool:
        return bool(self.agrees.mean() >= MIN_SHARE)

    @property
    def rank(self) -> tuple[bool, float]:
        return self.is_found, float(self.cosines.mean())

    def describe(self) -> str:
        made = self.made
        settings = [made.content, f"pooling {made.pooling}"]
        settings.append(f"prompt {made.prompt!r}" if made.prompt else "no prompt")
        if made.parts:
            settings.append(f"each {made.parts}")
        return ", ".join([*settings, f"{made.columns} columns", self.lengths])

    def summarise(self) -> str:
        return (
            f"cosine {self.cosines.mean():.4f}, "
            f"{int(self.agrees.sum())} of {len(self.agrees)} items"
        )


def find_recipe(
    vectors: np.ndarray, has_row: np.ndarray | None, encoders: Encoders, name: str, layout: Layout
) -> list[JudgedRecipe]:
    """Return the recipes of encoder `name` whose width fits, nearest first.

    `vectors` are float32 [I, F], of the items where `has_row`, bool [I], is set; None: all.
    Raises UserError if they or the items' content are too few.
    """
    if vectors.shape[1] < MIN_WIDTH:
        raise UserError(f"vectors of {vectors.shape[1]} column have no direction to compare")
    network = find_network(encoders, name, layout.out("encode", name))
    if ENCODERS[network.kind].fit and not network.files():
        raise UserError(f"'{name}' is fitted to items; run `alignrec encode {layout.dataset}`")

    is_known = vectors.any(axis=1)
    if has_row is not None:
        is_known &= has_row
    rows, content = sample_content(layout, np.flatnonzero(is_known), network.reads)
    parts = encode_variants(encoders, name, layout.out("encode", name), content)
    candidates = list_candidates(parts, vectors.shape[1])
    return rank_recipes(vectors[rows], candidates)


def sample_content(
    layout: Layout, known: np.ndarray, reads: Sequence[str]
) -> tuple[np.ndarray, Content]:
    """Draw items of `known`, int [N], with all modalities of `reads`, otherwise with the most
    frequent one.
    """
    rng = np.random.default_rng(seed_for("recipe", layout.dataset))
    drawn = np.sort(rng.choice(known, min(DRAWN_ITEMS, len(known)), replace=False))
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    item_of = {asins[item]: int(item) for item in drawn}
    rows = {item_of[row.asin]: row for row in open_dataset(layout).read(set(item_of))}
    files = {item: read_first_image(row) for item, row in rows.items()}

    has = {
        TEXT: {item for item, row in rows.items() if row.text.strip()},
        IMAGE: {item for item, file in files.items() if file is not None},
    }
    whole = set.intersection(*(has[modality] for modality in reads))
    used = list(reads)
    if len(whole) < MIN_SAMPLED_ITEMS:
        used = [max(reads, key=lambda modality: len(has[modality]))]
        whole = has[used[0]]
    if len(whole) < MIN_SAMPLED_ITEMS:
        raise UserError(
            f"{len(whole)} items of {layout.dataset} with a vector have {' or '.join(reads)}, at "
            f"least {MIN_SAMPLED_ITEMS} are needed"
        )

    shortest = sorted(whole, key=lambda item: (len(rows[item].text), item))[:SAMPLED_ITEMS]
    chosen = sorted(shortest)
    texts = [rows[item].text for item in chosen] if TEXT in used else None
    images = [files[item] or b"" for item in chosen] if IMAGE in used else None
    return np.array(chosen), Content(texts, images)


def read_first_image(row: ItemRow) -> bytes | None:
    return row.image.read(Images().max_bytes) if row.image else None


def list_candidates(parts: Sequence[EncodedPart], width: int) -> Iterator[RecipeCandidate]:
    """Yield the vectors of `width` columns that `parts` make alone or in pairs, likeliest first."""
    for part in parts:
        total = part.vectors.shape[1]
        if total >= width:
            reads = "image and text in one pass" if part.reads == BOTH else part.reads
            columns = describe_columns(width, total)
            yield RecipeCandidate(
                reads, part.pooling, part.prompt, "", columns, part.vectors[:, :width]
            )

    images = [part for part in parts if part.reads == IMAGE]
    texts = [part for part in parts if part.reads == TEXT]
    for image in images:
        for text in texts:
            yield from join_parts(image, text, width)


def join_parts(image: EncodedPart, text: EncodedPart, width: int) -> Iterator[RecipeCandidate]:
    pooling = image.pooling
    if text.pooling != image.pooling:
        pooling = f"{image.pooling} of image, {text.pooling} of text"

    joined = dict(zip(("image", "text"), cut_parts(image, text, width), strict=False))
    for scaling in (UNIT, RAW) if joined else ():
        scaled = joined
        if scaling == UNIT:
            scaled = {name: unit_rows(vectors)[0] for name, vectors in joined.items()}
        for order in (("image", "text"), ("text", "image")):
            vectors = np.hstack([scaled[name] for name in order])
            total = image.vectors.shape[1] + text.vectors.shape[1]
            columns = describe_columns(width, total)
            yield RecipeCandidate(
                " + ".join(order), pooling, text.prompt, scaling, columns, vectors
            )

    total = image.vectors.shape[1]
    if text.vectors.shape[1] != total or total < width:
        return
    for scaling in (UNIT, RAW):
        pair = [part.vectors[:, :width] for part in (image, text)]
        if scaling == UNIT:
            pair = [unit_rows(vectors)[0] for vectors in pair]
        columns = describe_columns(width, total)
        content = "mean of image and text"
        yield RecipeCandidate(
            content, pooling, text.prompt, scaling, columns, (pair[0] + pair[1]) / 2
        )


def cut_parts(image: EncodedPart, text: EncodedPart, width: int) -> list[np.ndarray]:
    """Return image and text with all or equally many columns, `width` in sum; empty if they have
    fewer.
    """
    both = [image.vectors, text.vectors]
    if sum(vectors.shape[1] for vectors in both) == width:
        return both
    half = width // 2
    if width % 2 or any(vectors.shape[1] < half for vectors in both):
        return []
    return [vectors[:, :half] for vectors in both]


def describe_columns(width: int, total: int) -> str:
    return f"all {total:,}" if width == total else f"the first {width:,} of {total:,}"


def rank_recipes(theirs: np.ndarray, candidates: Iterator[RecipeCandidate]) -> list[JudgedRecipe]:
    """Return candidates that differ from one another, nearest first; theirs are [n, F]."""
    recipes: list[JudgedRecipe] = []
    for made in candidates:
        recipe = measure_recipe(theirs, made)
        if not any(
            np.allclose(recipe.cosines, other.cosines, rtol=0, atol=EQUAL_WITHIN)
            for other in recipes
        ):
            recipes.append(recipe)
    return sorted(recipes, key=lambda recipe: recipe.rank, reverse=True)


def measure_recipe(theirs: np.ndarray, made: RecipeCandidate) -> JudgedRecipe:
    cosines = unit_rows(theirs)[0].astype(np.float64) @ unit_rows(made.vectors)[0].T
    n = len(cosines)
    own = np.diagonal(cosines).copy()
    mean_distance = 1 - (cosines.sum() - own.sum()) / (n * (n - 1))
    agrees = (own >= MIN_COSINE) & (1 - own <= MAX_DISTANCE * mean_distance)
    return JudgedRecipe(made, own, agrees, describe_lengths(theirs, made.vectors))


def describe_lengths(theirs: np.ndarray, made: np.ndarray) -> str:
    lengths = np.linalg.norm(theirs, axis=1)
    made_lengths = np.linalg.norm(made, axis=1)
    if np.allclose(lengths, made_lengths, rtol=LENGTH_WITHIN):
        return "not scaled"
    if np.allclose(lengths, 1, atol=LENGTH_WITHIN):
        return "scaled to length 1"
    return "of other lengths"


def describe_verdict(theirs: str, name: str, recipes: Sequence[JudgedRecipe]) -> str:
    if not recipes:
        return f"{theirs}: no recipe of {name} makes vectors of that width"
    best = recipes[0]
    if best.is_found:
        return f"{theirs}: made by {name}: {best.describe()} ({best.summarise()})"
    return (
        f"{theirs}: no recipe of {name} agrees; the nearest: {best.describe()} ({best.summarise()})"
    )


def recipe_table(recipes: Sequence[JudgedRecipe]) -> Table:
    rows = []
    for recipe in recipes[:SHOWN_RECIPES]:
        made = recipe.made
        items = f"{int(recipe.agrees.sum())}/{len(recipe.agrees)}"
        settings = [made.content, made.pooling, made.prompt, made.parts, made.columns]
        rows.append([*settings, f"{recipe.cosines.mean():.4f}", items])

    head = ["of", "pooling", "prompt", "parts", "columns", "cosine", "items"]
    note = f"{len(recipes):,} recipes tried, the nearest first. An item agrees from cosine "
    note += f"{MIN_COSINE}, if other items are further away."
    return Table("", note, head, rows, texts=5)
