"""The Amazon review data: addresses of a category in each version, and sizes of common ones.

Sources: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018), amazon-reviews-2023.github.io (2023).
"""

from __future__ import annotations

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

SIZES: dict[tuple[str, str], str] = {
    ("amazon2014", "Baby"): "19,445 users, 7,050 items, 160,792 interactions",
    ("amazon2014", "Sports_and_Outdoors"): "35,598 users, 18,357 items, 296,337 interactions",
    ("amazon2014", "Electronics"): "192,403 users, 63,001 items, 1,689,188 interactions",
    ("amazon2014", "Clothing_Shoes_and_Jewelry"): "39,387 users, 23,033 items, 278,677 interactions",
}
"""(version, category) -> size after the 5-core, as published"""


def addresses(version: str, category: str) -> dict[str, list[str]]:
    """Return role -> addresses of a category."""
    return {role: [a.format(category) for a in templates] for role, templates in ADDRESSES[version].items()}
