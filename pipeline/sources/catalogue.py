"""The Amazon review data: addresses of a category in each version, and what is published of its size.

Addresses: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018), amazon-reviews-2023.github.io (2023),
and the authors' dataset on the Hugging Face Hub, whose files are not packed. categories.json says where it was read.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

Subset = Literal["5-core", "all"]
"""reviews: the published 5-core, or all"""

_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"
_REPOSITORY = "https://datarepo.eng.ucsd.edu/mcauley_group/data"
_EARLIER = "https://jmcauley.ucsd.edu/data"
_HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main"


# version -> mirrors in the order in which they are tried, and paths; {} is the category as the publisher spells it
_MIRRORS = {
    "amazon2014": [f"{_SNAP}/{{}}", f"{_LAB}/amazon/categoryFiles/{{}}"],
    "amazon2018": [f"{base}/amazon_v2/{{}}" for base in (_LAB, _REPOSITORY, _EARLIER)],
    "amazon2023": [f"{_LAB}/amazon_2023/{{}}.gz", f"{_HUB}/{{}}", f"{_REPOSITORY}/amazon_2023/{{}}.gz"],
}
_PATHS = {
    "amazon2014": ("reviews_{}_5.json.gz", "reviews_{}.json.gz", "meta_{}.json.gz"),
    "amazon2018": ("categoryFilesSmall/{}_5.json.gz", "categoryFiles/{}.json.gz", "metaFiles2/meta_{}.json.gz"),
    "amazon2023": (
        *("benchmark/5core/rating_only/{}.csv", "benchmark/0core/rating_only/{}.csv"),
        "raw/meta_categories/meta_{}.jsonl",
    ),
}
ADDRESSES: dict[str, dict[str, list[str]]] = {
    version: {
        role: [mirror.format(path) for mirror in _MIRRORS[version]]
        for role, path in zip(("5-core", "all", "metadata"), paths, strict=True)
    }
    for version, paths in _PATHS.items()
}
"""version -> role or subset -> addresses"""
KIND = "amazon{}"  # of a source, given the year


def addresses(version: str, category: str, subset: Subset = "5-core") -> dict[str, list[str]]:
    roles = {"reviews": subset, "metadata": "metadata"}
    return {role: [one.format(category) for one in ADDRESSES[version][key]] for role, key in roles.items()}


class Published(NamedTuple):
    """Size of a category after the 5-core."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


@cache
def vintages() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = orjson.loads(Path(__file__).with_name("categories.json").read_bytes())
    return read


SIZES: dict[tuple[str, str], Published] = {
    (KIND.format("2014"), name): Published(*(int(counts[k].replace(",", "")) for k in ("users", "items", "reviews")))
    for name, counts in vintages()["2014"]["categories"].items()
    if counts
}  # (version, category) -> size after the 5-core, as published
