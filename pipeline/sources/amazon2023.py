"""Amazon review data of 2023: JSON lines, or the official rating-only CSV; an item is a `parent_asin`.

Format: amazon-reviews-2023.github.io. Times are milliseconds there and seconds here.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.config.parameters import Licence
from pipeline.sources import amazon2014, mmrec
from pipeline.sources.amazon import HEADER, AmazonSource
from pipeline.sources.lines import json_object
from pipeline.sources.product import Product, as_list, as_text, others
from pipeline.sources.sql import rating, read_csv, read_lines, stripped, trimmed

KEPT = frozenset({"parent_asin", "title", "categories", "description", "images"})  # `features`, `store` stay in `extra`
_ASIN = re.compile(rb'"parent_asin": ?"([^"\\]{1,64})"')
_SIZES = ("hi_res", "large", "thumb")  # best first


TERMS = Licence(
    HEADER | {"license_link": "https://amazon-reviews-2023.github.io/"},
    "Made from the Amazon Reviews 2023 data collected by Julian McAuley's group at UC San Diego, who ask that their "
    "paper be cited (Hou et al., *Bridging Language and Items for Retrieval and Recommendation*, arXiv 2403.03952). No "
    "licence is stated for the data; product texts and images belong to their owners. Use the release for research, "
    "and mind the terms of the source.",
    texts="none",
)


class Amazon2023(AmazonSource):
    """Amazon's review data of 2023."""

    kind: Literal["amazon2023"]
    licence: ClassVar[Licence] = TERMS


metadata = amazon2014.metadata
lines = amazon2014.lines
wanted = amazon2014.wanted
parse = json_object
key = partial(amazon2014.found, _ASIN)


def ratings(raw: Mapping[str, Path]) -> str:
    if mmrec.INTERACTIONS in raw:
        return mmrec.ratings(raw)
    path = raw["reviews"]
    columns = ("user_id", "parent_asin", "rating", "timestamp")
    table = read_csv(path, columns, header=True) if ".csv" in path.suffixes else read_lines(path, columns)
    return (
        f"SELECT {stripped('user_id')} AS user, {stripped('parent_asin')} AS item, "
        f"{rating(trimmed('rating'))} AS rating, "
        f"try_cast({trimmed('timestamp')} AS BIGINT) // 1000 AS timestamp FROM {table}"
    )


def name(record: dict[str, Any]) -> str | None:
    asin = record.get("parent_asin")
    return asin if isinstance(asin, str) else None


def product(record: dict[str, Any]) -> Product:
    details = record.get("details")
    brand = as_text(details.get("Brand")) if isinstance(details, dict) else ""
    return Product(
        title=as_text(record.get("title")),
        brand=brand or as_text(record.get("store")),
        categories=as_list(record.get("categories")),
        description=" ".join(as_list(record.get("features")) + as_list(record.get("description"))),
        image_urls=_image_urls(record.get("images")),
        extra=others(record, KEPT),
    )


def _image_urls(images: Any) -> list[str]:
    """Return addresses: the MAIN image in its sizes, the largest first, then the others likewise."""
    entries = [i for i in images if isinstance(i, dict)] if isinstance(images, list) else []
    entries.sort(key=lambda i: i.get("variant") != "MAIN")  # stable: the others keep their order
    return list(dict.fromkeys(url for image in entries for size in _SIZES for url in as_list(image.get(size))))
