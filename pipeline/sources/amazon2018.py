"""Amazon review data of 2018: JSON lines; fields may be lists, carry HTML, or hold a page's script.

Format: nijianmo.github.io/amazon. Duplicate lines of one ASIN are merged later, by the rule of pipeline/items/build.py.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline.sources import amazon2014, mmrec
from pipeline.sources.amazon import AmazonSource
from pipeline.sources.lines import json_object
from pipeline.sources.product import Product, as_list, as_text, others

KEPT = frozenset({"asin", "title", "brand", "category", "description", "imageURL", "imageURLHighRes"})

_ASIN = re.compile(rb'"asin": ?"([^"\\]{1,64})"')
_SCRIPT = "getTime"  # the dataset's own page names this as the sign of titles that are a page's script


class Amazon2018(AmazonSource):
    """Amazon's review data of 2018."""

    kind: Literal["amazon2018"]


metadata = amazon2014.metadata
lines = amazon2014.lines
wanted = amazon2014.wanted
name = amazon2014.name
parse = json_object
key = partial(amazon2014.found, _ASIN)


def ratings(raw: Mapping[str, Path]) -> str:
    if mmrec.INTERACTIONS in raw:
        return mmrec.ratings(raw)
    return amazon2014.ratings_sql(raw["reviews"], csv_columns=("item", "user", "rating", "timestamp"))


def product(record: dict[str, Any]) -> Product:
    title = as_text(record.get("title"))
    urls = as_list(record.get("imageURLHighRes")) + as_list(record.get("imageURL"))  # best first
    return Product(
        title="" if _SCRIPT in title else title,
        brand=as_text(record.get("brand")),
        categories=as_list(record.get("category")),
        description=as_text(record.get("description")),
        image_urls=list(dict.fromkeys(urls)),
        extra=others(record, KEPT),
    )
