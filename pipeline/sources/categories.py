"""Sizes of the categories of Amazon's review data: published counts, and estimates from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

KIND = "amazon{}"  # name of the kind of source, with {} for the year
# the 5-core of a category whose counts are not published, from Video_Games, Musical_Instruments
# and Industrial_and_Scientific of 2023, and the 253 users of All_Beauty: its share of the reviews
# grows with reviews per user
CORE_SHARE = 0.17  # of all reviews, where users have CORE_REVIEWS_PER_USER
CORE_REVIEWS_PER_USER = 1.65
CORE_GROWTH = 2.2  # exponent of the reviews per user beyond the first
MAX_CORE_SHARE = 0.2
CORE_PER_USER = 8.5  # interactions
CORE_PER_ITEM = 20.0


class Published(NamedTuple):
    """Size of a category's 5-core."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


class Category(NamedTuple):
    """Published counts of a category; None where there are none."""

    # of all reviews
    users: int | None = None
    items: int | None = None
    reviews: int | None = None
    core: Published | None = None  # the 5-core
    core_interactions: int | None = None  # of the 5-core

    def estimate_core(self) -> Published | None:
        """Return the size of the 5-core as published, or an estimate from other counts."""
        if self.core is not None:
            return self.core
        if self.core_interactions is not None:
            interactions = float(self.core_interactions)
        elif self.reviews is not None:
            interactions = self._core_share() * self.reviews
        else:
            return None

        items = interactions / CORE_PER_ITEM
        if self.items is not None:
            items = min(items, self.items)
        return Published(
            round_estimate(interactions / CORE_PER_USER),
            round_estimate(items),
            self.core_interactions or round_estimate(interactions),
        )

    def _core_share(self) -> float:
        if self.users is None or self.reviews is None:
            return CORE_SHARE
        repeated = (self.reviews / self.users - 1) / (CORE_REVIEWS_PER_USER - 1)
        return min(MAX_CORE_SHARE, CORE_SHARE * max(0.0, repeated) ** CORE_GROWTH)


def round_estimate(count: float) -> int:
    """Round to two digits, as many as an estimate is good for."""
    return round(float(f"{count:.1e}"))


def read_count(text: str) -> int:
    """Read a count such as 371,345, 632.0K or 2.0M."""
    units = {"K": 1e3, "M": 1e6}
    if text[-1] in units:
        return round(float(text[:-1]) * units[text[-1]])
    return int(text.replace(",", ""))


def _read_category(year: str, given: Mapping[str, Any]) -> Category:
    if year != "2014":
        core = Published(**given["5-core"]) if "5-core" in given else None
        users = read_count(given["users"]) if "users" in given else None
        return Category(users, read_count(given["items"]), read_count(given["reviews"]), core)
    # of 2014 only the 5-cores are counted
    core = Published(**given) if "users" in given else None
    return Category(core=core, core_interactions=given.get("interactions"))


CATEGORIES: dict[str, dict[str, Category]] = {  # year -> name -> category
    year: {name: _read_category(year, given) for name, given in vintage["categories"].items()}
    for year, vintage in orjson.loads(
        Path(__file__).with_name("categories.json").read_bytes()
    ).items()
}


def find_category(kind: str, name: str) -> Category:
    """Return the counts of a category; none for an unknown one."""
    return CATEGORIES.get(kind.removeprefix(KIND.format("")), {}).get(name, Category())


def by_size(year: str) -> list[tuple[str, Category]]:
    """Return the categories of a year, the smallest 5-core first and unknown ones last."""

    def size_of(pair: tuple[str, Category]) -> tuple[float, str]:
        core = pair[1].estimate_core()
        return (core.interactions if core else float("inf"), pair[0])

    return sorted(CATEGORIES[year].items(), key=size_of)
