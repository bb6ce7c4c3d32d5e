"""Synthetic shoppers of the embedded shop, with planted preferences that good features should recover."""

import numpy as np
import pyarrow as pa

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


def draw_purchases(category: np.ndarray, subcategory: np.ndarray, colour: np.ndarray, shape: np.ndarray,
              users: int, seed: int) -> pa.Table:  # fmt: skip
    """Return user, item, stars and timestamp (s), ordered by time, without duplicate pairs; groups are int [I]."""
    rng = np.random.default_rng(seed)
    popularity = (rng.permutation(len(category)) + 10.0) ** -0.7  # [I]
    look = look_number(colour, shape)
    anything = np.cumsum(popularity / popularity.sum())[None]  # [1, I], cumulative; other motives: [groups, I]
    by_theme, by_look = (subcategory, category), (look, colour)
    weights = [*(_cumulative_chances(*groups, popularity) for groups in (by_theme, by_look)), anything]
    themes = _draw_favourites(rng, subcategory, users, THEMES)  # [U, 2]
    looks = _draw_favourites(rng, look, users, LOOKS)

    sessions = 1 + rng.poisson(1.2, users)
    user = np.repeat(np.arange(users), sessions)  # [S], one row per session from here on
    mood = _draw_moods(rng, user)
    begins = START + rng.integers(0, SPAN, len(user))
    begins = begins[np.lexsort((begins, user))]
    picks = 2 + rng.poisson(2.7, len(user))

    row = np.repeat(np.arange(len(user)), picks)  # [P], one row per pick from here on
    minute = np.arange(len(row)) - np.repeat(np.cumsum(picks) - picks, picks)
    motive = rng.choice(len(MOTIVES), len(row), p=MOTIVES)
    buyer = user[row]
    group = np.where(motive == 0, themes[buyer, mood[row] % THEMES], looks[buyer, mood[row] // THEMES])
    draw = rng.random(len(row))
    group[motive == 2] = 0  # noise has a single group
    item = np.empty(len(row), np.int64)
    for m, cumulative in enumerate(weights):
        item[motive == m] = _pick_items(cumulative, group[motive == m], draw[motive == m])
    time = begins[row] + 60 * minute
    stars = 1 + rng.choice(len(STARS), len(row), p=STARS)
    kept = _first_purchases(buyer, item, time)
    columns: dict[str, np.ndarray] = {
        "user": buyer.astype(np.int32),
        "item": item.astype(np.int32),
        "stars": stars.astype(np.int8),
    }
    return pa.table({name: values[kept] for name, values in (columns | {"timestamp": time}).items()})


def _first_purchases(buyer: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the rows to keep, in order of time, without repeated purchases of the same sticker."""
    order = np.lexsort((item, buyer, time))
    pair = buyer[order] * (item.max() + 1) + item[order]
    return order[np.sort(np.unique(pair, return_index=True)[1])]


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


def _pick_items(cumulative: np.ndarray, group: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Return, per row, the first item whose cumulative probability in the row's group exceeds `draw`."""
    # one sorted line of all groups, group g's items at g + [0, 1], allows a single search
    line = (np.arange(len(cumulative))[:, None] + np.minimum(cumulative, 1)).ravel()
    at = np.searchsorted(line, group + draw, side="right")
    return np.minimum(at - group * cumulative.shape[1], cumulative.shape[1] - 1)
