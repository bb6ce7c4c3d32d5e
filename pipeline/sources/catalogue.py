"""The Amazon review data: addresses of a category in each version, and sizes of common ones.

Sources: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018), amazon-reviews-2023.github.io (2023).
"""

from typing import NamedTuple

_SNAP = "https://snap.stanford.edu/data/amazon/productGraph"
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"

# version -> role -> addresses, mirrors in order; {} is the category as the publisher spells it
ADDRESSES: dict[str, dict[str, list[str]]] = {
    "amazon2014": {
        "reviews": [f"{_SNAP}/categoryFiles/reviews_{{}}_5.json.gz"],
        "metadata": [f"{_SNAP}/categoryFiles/meta_{{}}.json.gz"],
    },
    "amazon2018": {
        "reviews": [f"{_LAB}/amazon_v2/categoryFilesSmall/{{}}_5.json.gz"],
        "metadata": [f"{_LAB}/amazon_v2/metaFiles2/meta_{{}}.json.gz"],
    },
    "amazon2023": {
        "reviews": [f"{_LAB}/amazon_2023/benchmark/5core/rating_only/{{}}.csv.gz"],
        "metadata": [f"{_LAB}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz"],
    },
}


class Published(NamedTuple):
    """Size of a category after the 5-core."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


SIZES: dict[tuple[str, str], Published] = {
    ("amazon2014", "Baby"): Published(19_445, 7_050, 160_792),
    ("amazon2014", "Sports_and_Outdoors"): Published(35_598, 18_357, 296_337),
    ("amazon2014", "Electronics"): Published(192_403, 63_001, 1_689_188),
    ("amazon2014", "Clothing_Shoes_and_Jewelry"): Published(39_387, 23_033, 278_677),
}
"""(version, category) -> size after the 5-core, as published"""


def addresses(version: str, category: str) -> dict[str, list[str]]:
    """Return role -> addresses of a category."""
    return {role: [a.format(category) for a in templates] for role, templates in ADDRESSES[version].items()}
