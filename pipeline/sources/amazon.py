"""Amazon review data of 2014, 2018 and 2023: addresses, sizes, parameters, licences and readers."""

import ast
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import orjson
from pydantic import Field, model_validator

from alignrec.pipeline.io.json_rows import json_object, require_dict
from alignrec.pipeline.io.sql import csv_sql, json_sql, quote_text, rating_sql, strip_sql, trim_sql
from alignrec.pipeline.runtime.section import Mirrors
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources import mmrec
from alignrec.pipeline.sources.base import Downloaded, Product, Reader, as_list, as_text

_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"
_REPOSITORY = "https://datarepo.eng.ucsd.edu/mcauley_group/data"

# Formats and addresses: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018) and
# amazon-reviews-2023.github.io (2023). {} is the category as the publisher spells it; mirrors are tried in order.
MIRRORS = {
    "amazon2014": [f"{_SNAP}/{{}}", f"{_LAB}/amazon/categoryFiles/{{}}"],
    "amazon2018": [
        f"{base}/amazon_v2/{{}}" for base in (_LAB, _REPOSITORY, "https://jmcauley.ucsd.edu/data")
    ],
    "amazon2023": [f"{_LAB}/amazon_2023/{{}}.gz", f"{_REPOSITORY}/amazon_2023/{{}}.gz"],
}
_PATHS = {
    "amazon2014": ("reviews_{}_5.json.gz", "reviews_{}.json.gz", "meta_{}.json.gz"),
    "amazon2018": (
        "categoryFilesSmall/{}_5.json.gz",
        "categoryFiles/{}.json.gz",
        "metaFiles2/meta_{}.json.gz",
    ),
    "amazon2023": (
        *("benchmark/5core/rating_only/{}.csv", "benchmark/0core/rating_only/{}.csv"),
        "raw/meta_categories/meta_{}.jsonl",
    ),
}
KIND = "amazon{}"  # name of the kind of source, with {} for the year
ONLY_JSON = re.compile(
    rb"[\[:,]\s*+(?:-?[0-9]{19}|true|false|null)"
)  # not Python, or another value there


class Published(NamedTuple):
    """Published size of a category's 5-core."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


CATEGORIES: dict[str, list[str]] = {}  # year -> categories
SIZES: dict[
    tuple[str, str], Published
] = {}  # (kind, category) -> size of the published 5-core, from categories.json
for _year, _vintage in orjson.loads(
    Path(__file__).with_name("categories.json").read_bytes()
).items():
    CATEGORIES[_year] = [*_vintage["categories"]]
    if _year == "2014":
        SIZES |= {
            (KIND.format(_year), n): Published(**c) for n, c in _vintage["categories"].items() if c
        }


def _licence(link: str, data: str, cited: str) -> Licence:
    return Licence(
        {"license": "other", "license_name": "amazon-review-data", "license_link": link},
        f"Made from the {data} collected by Julian McAuley's group at UC San Diego, who ask that their {cited}. No "
        "licence is stated for the data; product texts and images belong to their owners. Use the release for "
        "research, and mind the terms of the source.",
        address=link,
        texts="none",
    )


class AmazonReader(Reader):
    """Common base of the readers of all three versions; defaults are those of 2018."""

    item = "asin"  # field of the item identifier
    item_columns = {**Reader.item_columns, "item": "asin"}
    pattern = re.compile(rb'"asin": ?"([^"\\]{1,64})"')
    columns = ("reviewerID", "asin", "overall", "unixReviewTime")  # fields of reviews
    csv_columns = ("asin", "reviewerID", "overall", "unixReviewTime")  # columns of ratings as CSV
    header = False  # whether the CSV has a header
    ticks = 1  # timestamp units per second

    def ratings(self, raw: Mapping[str, Path]) -> str:
        if mmrec.INTERACTIONS in raw:
            return mmrec.ratings_sql(raw[mmrec.INTERACTIONS])
        path = raw["reviews"]
        if path.suffix == ".parquet":  # as converted by the Hub
            texts = ", ".join(f"{column}::VARCHAR AS {column}" for column in self.columns)
            table = f"(SELECT {texts} FROM read_parquet({quote_text(path)}))"
        else:
            is_csv = ".csv" in path.suffixes
            table = (
                csv_sql(path, self.csv_columns, self.header)
                if is_csv
                else json_sql(path, self.columns)
            )
        user, item, stars, time = self.columns
        return (
            f"SELECT {strip_sql(user)} AS user, {strip_sql(item)} AS item, {rating_sql(trim_sql(stars))} AS rating, "
            f"try_cast({trim_sql(time)} AS BIGINT) // {self.ticks} AS timestamp FROM {table}"
        )

    def name(self, record: dict[str, Any]) -> str | None:
        return value if isinstance(value := record.get(self.item), str) else None


class Reader2014(AmazonReader):
    """Reader of the 2014 version, whose metadata lines are Python literals."""

    pattern = re.compile(rb"""['"]asin['"]: ?['"]([^'"]{1,64})['"]""")
    csv_columns = AmazonReader.columns
    # `categories` also stays in `extra`, as only one of its paths is used
    kept = frozenset({"asin", "title", "brand", "description", "imUrl"})
    longest = (
        1 << 18
    )  # maximum bytes of a literal: parsing takes 600 times its size; real lines have up to 100 kB

    def parse(self, line: bytes) -> dict[str, Any]:
        with suppress(orjson.JSONDecodeError):
            return require_dict(orjson.loads(line))
        if len(line) > self.longest:
            raise ValueError("not JSON, and too long for a Python literal")
        # with the quotes of JSON a literal is parsed twenty times as fast, to the same values under these conditions:
        # single quotes are paired in every second part, so that the other parts are inside double quotes
        parts = line.split(b'"')
        if not (
            b"\\" in line
            or ONLY_JSON.search(line)
            or any(part.count(b"'") % 2 for part in parts[::2])
        ):
            parts[::2] = [part.replace(b"'", b'"') for part in parts[::2]]
            with suppress(orjson.JSONDecodeError):
                return require_dict(orjson.loads(b'"'.join(parts)))
        try:
            # literal_eval runs no code
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # ignore warnings about invalid escapes such as '\d'
                record = ast.literal_eval(line.decode())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ValueError("not a Python literal in UTF-8") from None
        return require_dict(record)

    def product(self, record: dict[str, Any]) -> Product:
        paths = [as_list(path) for path in _of_type(list, record.get("categories"))]
        deepest = max(paths, key=len, default=[])  # the first of equally deep ones
        return super().product(record)._replace(categories=deepest)


class Reader2018(AmazonReader):
    """Reader of the 2018 version, whose fields may be lists or contain HTML or scripts."""

    kept = frozenset(
        {"asin", "title", "brand", "category", "description", "imageURL", "imageURLHighRes"}
    )
    item_columns = {**AmazonReader.item_columns, "categories": "category", "image_urls": "imageURL"}
    script = "getTime"  # marks titles that are scripts, according to the dataset's page

    def product(self, record: dict[str, Any]) -> Product:
        product = super().product(record)
        urls = as_list(record.get("imageURLHighRes")) + as_list(
            record.get("imageURL")
        )  # best first
        return product._replace(
            title="" if self.script in product.title else product.title,
            categories=as_list(record.get("category")),
            image_urls=list(dict.fromkeys(urls)),
        )


class Reader2023(AmazonReader):
    """Reader of the 2023 version, where items are `parent_asin` and times are in milliseconds."""

    item = "parent_asin"
    pattern = re.compile(rb'"parent_asin": ?"([^"\\]{1,64})"')
    columns = csv_columns = ("user_id", "parent_asin", "rating", "timestamp")
    header = True
    ticks = 1000
    # `features` and `store` are read too, but stay in `extra`
    kept = frozenset({"parent_asin", "title", "categories", "description", "images"})
    item_columns = {
        "item": "parent_asin",
        "title": "title",
        "categories": "categories",
        "image_urls": "images",
    }

    def product(self, record: dict[str, Any]) -> Product:
        details, images = record.get("details"), record.get("images")
        if isinstance(details, str) and details.startswith(
            "{"
        ):  # the Hub's Parquet has JSON, and lists in `images`
            details = json_object(details.encode())
        if isinstance(images, dict):
            images = [
                dict(zip(images, values, strict=False))
                for values in zip(*images.values(), strict=False)
            ]
        brand = as_text(details.get("Brand")) if isinstance(details, dict) else ""
        entries = sorted(
            _of_type(dict, images), key=lambda i: i.get("variant") != "MAIN"
        )  # stable sort: MAIN first
        urls = [
            url
            for i in entries
            for size in ("hi_res", "large", "thumb")
            for url in as_list(i.get(size))
        ]
        product = super().product(record)
        return product._replace(
            brand=brand or as_text(record.get("store")),
            description=" ".join(
                as_list(record.get("features")) + as_list(record.get("description"))
            ),
            image_urls=list(dict.fromkeys(urls)),
        )


def _of_type(kind: type, values: Any) -> list[Any]:
    return (
        [value for value in values if isinstance(value, kind)] if isinstance(values, list) else []
    )


class AmazonSource(Downloaded):
    """Raw Amazon review data as published; `category: Baby` fills in the publisher's addresses."""

    kind: Literal["amazon2014", "amazon2018", "amazon2023"]
    # category as the publisher spells it; fills in `reviews` and `metadata` unless they are given
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    # which reviews `category` fills in: the published 5-core, or all, which the interactions stage filters
    subset: Literal["5-core", "all"] = "5-core"
    reviews: Mirrors | None = None  # reviews as JSON lines, or ratings as CSV
    # published split to use instead of `reviews`; its ids are kept, and metadata is matched by ASIN
    split: mmrec.PublishedSplit | None = None
    metadata: Mirrors | None = None  # meta_*.json.gz; without it items have no text or image
    licence: ClassVar[Licence] = _licence(
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        "Amazon review data",
        "papers be cited (2014: McAuley et al., *Image-based recommendations on styles and substitutes*; 2018: Ni et "
        "al., *Justifying recommendations using distantly-labeled reviews and fine-grained aspects*)",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        known = (
            isinstance(raw, dict)
            and raw.get("kind") in MIRRORS
            and isinstance(raw.get("category"), str)
        )
        if not known:
            return raw
        if "subset" in raw and ("reviews" in raw or raw.get("split")):
            raise ValueError(
                "subset: applies to what `category` fills in, not to `reviews` or `split`"
            )
        core, every, metadata = (path.format(raw["category"]) for path in _PATHS[raw["kind"]])
        paths = {"reviews": every if raw.get("subset") == "all" else core, "metadata": metadata}
        if raw.get("split"):
            del paths["reviews"]
        return {
            role: [mirror.format(path) for mirror in MIRRORS[raw["kind"]]]
            for role, path in paths.items()
        } | raw

    @model_validator(mode="after")
    def _one_source_of_interactions(self) -> Self:
        if bool(self.split) == bool(self.reviews):
            raise ValueError(
                "reviews: give either an address or `category`, or `split`, which has the interactions"
            )
        if self.split and not self.metadata:
            raise ValueError(
                "metadata: is required with `split`, which has neither texts nor images"
            )
        return self

    def reader(self) -> Reader:
        return {"amazon2014": Reader2014, "amazon2018": Reader2018, "amazon2023": Reader2023}[
            self.kind
        ]()

    def files(self) -> dict[str, list[str]]:
        metadata = {"metadata": self.metadata} if self.metadata else {}
        interactions = self.split.files() if self.split else {"reviews": self.reviews or []}
        return interactions | metadata | self.feature_files()

    @property
    def has_split(self) -> bool:
        return self.split is not None


class Amazon2023(AmazonSource):
    """Amazon's review data of 2023."""

    licence: ClassVar[Licence] = _licence(
        "https://amazon-reviews-2023.github.io/",
        "Amazon Reviews 2023 data",
        "paper be cited (Hou et al., *Bridging Language and Items for Retrieval and Recommendation*, arXiv 2403.03952)",
    )
