"""Synthetic shoppers of the embedded dataset, with preferences that good features should recover.

A shopper comes in a few sessions over two years and picks a few stickers in each. A session has a
mood: one theme and one look of the shopper's favourites. Each pick has one of three motives:

    theme  a sticker of the mood's subcategory (weight 1) or category (weight COARSE):
           visible in the text
    look   a sticker of the mood's colour and shape (weight 1) or colour (weight COARSE):
           visible only in the image
    noise  any sticker

Given the motive, stickers are drawn by popularity, (rank + 10)^-0.7 over a random order: a long
tail that neither text nor image explains. Favourites (THEMES subcategories, LOOKS pairs of colour
and shape) are drawn by the square root of their number of stickers. A session keeps the previous
mood with probability STAY, so that the last session can be predicted from earlier ones.

I items, U users, S sessions, P picks.
"""

import numpy as np
import pyarrow as pa

MOTIVES = (0.45, 0.40, 0.15)  # probability of theme, look, noise
THEME, NOISE = 0, 2  # positions in MOTIVES
COARSE = 0.03
THEMES = 2  # favourite subcategories per shopper
LOOKS = 2  # favourite pairs of colour and shape per shopper
STAY = 0.6
MORE_SESSIONS = 1.2  # mean number after the first
MORE_PICKS = 2.7  # mean number after the first two
START_SECONDS = 1_388_534_400  # 2014-01-01
SPAN_SECONDS = 2 * 365 * 86_400
SECONDS_PER_PICK = 60
STARS = (0.03, 0.04, 0.10, 0.23, 0.60)  # probability of 1 .. 5 stars
TINY = 1e-300  # keeps empty groups from dividing by zero


def draw_purchases(
    category: np.ndarray,
    subcategory: np.ndarray,
    colour: np.ndarray,
    shape: np.ndarray,
    users: int,
    seed: int,
) -> pa.Table:
    """Return user, item, stars and timestamp (s), ordered by time, without duplicate pairs.

    Groups are int [I].
    """
    rng = np.random.default_rng(seed)
    popularity = (rng.permutation(len(category)) + 10.0) ** -0.7  # [I]
    look = look_number(colour, shape)
    chances = [
        _cumulative_chances(subcategory, category, popularity),
        _cumulative_chances(look, colour, popularity),
        np.cumsum(popularity / popularity.sum())[None],
    ]  # per motive, cumulative, [groups, I]
    themes = _draw_favourites(rng, subcategory, users, THEMES)  # [U, 2]
    looks = _draw_favourites(rng, look, users, LOOKS)

    user = np.repeat(np.arange(users), 1 + rng.poisson(MORE_SESSIONS, users))  # [S]
    mood = _draw_moods(rng, user)
    begins = START_SECONDS + rng.integers(0, SPAN_SECONDS, len(user))
    begins = begins[np.lexsort((begins, user))]
    picks = 2 + rng.poisson(MORE_PICKS, len(user))

    session = np.repeat(np.arange(len(user)), picks)  # [P]
    minute = np.arange(len(session)) - np.repeat(np.cumsum(picks) - picks, picks)
    motive = rng.choice(len(MOTIVES), len(session), p=MOTIVES)
    buyer = user[session]
    theme = themes[buyer, mood[session] % THEMES]
    group = np.where(motive == THEME, theme, looks[buyer, mood[session] // THEMES])
    group[motive == NOISE] = 0  # noise has a single group
    item = _draw_items(rng, chances, motive, group)
    stars = 1 + rng.choice(len(STARS), len(session), p=STARS)

    time = begins[session] + SECONDS_PER_PICK * minute
    purchases: dict[str, np.ndarray] = {
        "user": buyer.astype(np.int32),
        "item": item.astype(np.int32),
        "stars": stars.astype(np.int8),
        "timestamp": time,
    }
    chosen = _first_purchases(time, buyer, item)
    return pa.table({name: values[chosen] for name, values in purchases.items()})


def look_number(colour: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.asarray(colour * (shape.max() + 1) + shape, np.int64)


def _cumulative_chances(fine: np.ndarray, coarse: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Return cumulative probabilities of items per fine group, float64 [groups, I]."""
    groups = np.arange(fine.max() + 1)
    parent = np.zeros(len(groups), coarse.dtype)
    parent[fine] = coarse

    weight = (fine == groups[:, None]) + COARSE * (coarse == parent[:, None])
    chance = weight * popularity
    totals = np.maximum(chance.sum(1, keepdims=True), TINY)
    return np.cumsum(chance / totals, axis=1)


def _draw_favourites(rng: np.random.Generator, group: np.ndarray, users: int, n: int) -> np.ndarray:
    chance = np.sqrt(np.bincount(group))
    return rng.choice(len(chance), (users, n), p=chance / chance.sum())


def _draw_moods(rng: np.random.Generator, user: np.ndarray) -> np.ndarray:
    """Return the mood of each session, int64 [S]."""
    is_new = rng.random(len(user)) >= STAY
    is_new[np.r_[True, user[1:] != user[:-1]]] = True
    since = np.maximum.accumulate(np.where(is_new, np.arange(len(user)), 0))
    return rng.integers(0, THEMES * LOOKS, len(user))[since]


def _draw_items(
    rng: np.random.Generator, chances: list[np.ndarray], motive: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Draw the item of each pick from the chances of its motive and group, int64 [P]."""
    draws = rng.random(len(motive))
    items = np.empty(len(motive), np.int64)
    for number, cumulative in enumerate(chances):
        is_motive = motive == number
        groups = group[is_motive]
        n_groups, n_items = cumulative.shape

        # one search for all groups: shift the chances of group g to g + [0, 1] in one sorted array
        shifted = np.arange(n_groups)[:, None] + np.minimum(cumulative, 1)
        places = np.searchsorted(shifted.ravel(), groups + draws[is_motive], side="right")
        items[is_motive] = np.minimum(places - groups * n_items, n_items - 1)
    return items


def _first_purchases(time: np.ndarray, buyer: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return the picks by time, without repeated purchases of the same sticker."""
    order = np.lexsort((item, buyer, time))
    pairs = buyer[order] * (item.max() + 1) + item[order]
    _, first = np.unique(pairs, return_index=True)
    return order[np.sort(first)]
