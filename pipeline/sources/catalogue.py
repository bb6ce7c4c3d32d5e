"""The Amazon review data: addresses of a category in each version, and what is published of its size.

Addresses: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018), amazon-reviews-2023.github.io (2023),
and the authors' dataset on the Hugging Face Hub, whose files are not packed. categories.json says where it was read.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

Subset = Literal["5-core", "all"]
"""of the reviews: those left when each user and item has five, as published; or each one"""

_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"
_REPOSITORY = "https://datarepo.eng.ucsd.edu/mcauley_group/data"
_EARLIER = "https://jmcauley.ucsd.edu/data"
_HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main"


def _mirrored(bases: list[str], path: str) -> list[str]:
    return [f"{base}/{path}" for base in bases]


_2014, _2018 = [_SNAP, f"{_LAB}/amazon/categoryFiles"], [f"{base}/amazon_v2" for base in (_LAB, _REPOSITORY, _EARLIER)]
_META_2023 = "raw/meta_categories/meta_{}.jsonl"


def _of_2023(path: str) -> list[str]:
    """Return the publisher's address, the Hub's and an older one of the publisher's; the Hub's file is not packed."""
    return [f"{_LAB}/amazon_2023/{path}.gz", f"{_HUB}/{path}", f"{_REPOSITORY}/amazon_2023/{path}.gz"]


# version -> role, of reviews with the subset -> addresses, in the order in which they are tried; {} is the category as
# the publisher spells it
ADDRESSES: dict[str, dict[str, list[str]]] = {
    "amazon2014": {
        "5-core": _mirrored(_2014, "reviews_{}_5.json.gz"),
        "all": _mirrored(_2014, "reviews_{}.json.gz"),
        "metadata": _mirrored(_2014, "meta_{}.json.gz"),
    },
    "amazon2018": {
        "5-core": _mirrored(_2018, "categoryFilesSmall/{}_5.json.gz"),
        "all": _mirrored(_2018, "categoryFiles/{}.json.gz"),
        "metadata": _mirrored(_2018, "metaFiles2/meta_{}.json.gz"),
    },
    "amazon2023": {
        "5-core": _of_2023("benchmark/5core/rating_only/{}.csv"),
        "all": _of_2023("benchmark/0core/rating_only/{}.csv"),
        "metadata": _of_2023(_META_2023),
    },
}
KIND = "amazon{}"  # of a source, given the year of the data


def addresses(version: str, category: str, subset: Subset = "5-core") -> dict[str, list[str]]:
    of = ADDRESSES[version]
    return {
        role: [address.format(category) for address in of[key]]
        for role, key in {"reviews": subset, "metadata": "metadata"}.items()
    }


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


def _whole(number: str) -> int:
    return int(number.replace(",", ""))


SIZES: dict[tuple[str, str], Published] = {
    (KIND.format("2014"), name): Published(*(_whole(counts[key]) for key in ("users", "items", "reviews")))
    for name, counts in vintages()["2014"]["categories"].items()
    if counts
}  # (version, category) -> size after the 5-core, as published
