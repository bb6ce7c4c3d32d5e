"""Amazon review data of 2014, 2018 and 2023: addresses, parameters, licences and readers."""

import ast
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import Field, model_validator

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names, json_object, refuse_repeated, require_dict
from alignrec.pipeline.io.sql import (
    csv_sql,
    json_sql,
    numbered_columns,
    parquet_sql,
    rating_sql,
    strip_sql,
    trim_sql,
)
from alignrec.pipeline.runtime.section import Address
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources import mmrec
from alignrec.pipeline.sources.base import Downloaded, Product, Reader, as_list, as_text

# Formats and addresses: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018) and
# amazon-reviews-2023.github.io (2023). {} is the category as the publisher spells it.
FOLDERS = {
    "amazon2014": "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
    "amazon2018": "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
    "amazon2023": "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023",
}
PATHS = {
    "amazon2014": {
        "5-core": "reviews_{}_5.json.gz",
        "all": "reviews_{}.json.gz",
        "metadata": "meta_{}.json.gz",
    },
    "amazon2018": {
        "5-core": "categoryFilesSmall/{}_5.json.gz",
        "all": "categoryFiles/{}.json.gz",
        "metadata": "metaFiles2/meta_{}.json.gz",
    },
    "amazon2023": {
        "5-core": "benchmark/5core/rating_only/{}.csv.gz",
        "all": "benchmark/0core/rating_only/{}.csv.gz",
        "metadata": "raw/meta_categories/meta_{}.jsonl.gz",
    },
}  # kind -> subset of the reviews, or metadata -> path below its folder
# not Python, or another value there
ONLY_JSON = re.compile(rb"[\[:,]\s*+(?:-?[0-9]{19}|true|false|null)")
# of a Python literal: parsing takes 600 times its size; real lines have up to 100 kB
MAX_LITERAL_BYTES = 1 << 18
SCRIPT = "getTime"  # marks titles that are scripts, according to the dataset's page of 2018
IMAGE_SIZES = ("hi_res", "large", "thumb")  # fields of an image of 2023, best first


def _licence(link: str, data: str, cited: str) -> Licence:
    return Licence(
        {"license": "other", "license_name": "amazon-review-data", "license_link": link},
        f"Made from the {data} collected by Julian McAuley's group at UC San Diego, who ask that "
        f"their {cited}. No licence is stated for the data; product texts and images belong to "
        "their owners. Use the release for research, and mind the terms of the source.",
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
        if mmrec.INTERACTIONS_ROLE in raw:
            return mmrec.ratings_sql(raw[mmrec.INTERACTIONS_ROLE])

        user, item, rating, time = self.columns
        return (
            f"SELECT {strip_sql(user)} AS user, {strip_sql(item)} AS item, "
            f"{rating_sql(trim_sql(rating))} AS rating, "
            f"try_cast({trim_sql(time)} AS BIGINT) // {self.ticks} AS timestamp "
            f"FROM {self._table_sql(raw['reviews'])}"
        )

    def _table_sql(self, path: Path) -> str:
        if path.suffix == ".parquet":  # as converted by the Hub
            return self._hub_sql(path)
        if ".csv" in path.suffixes:
            return csv_sql(path, self.csv_columns, self.header)
        return json_sql(path, self.columns)

    def _hub_sql(self, path: Path) -> str:
        present = column_names(path)
        refuse_repeated(path, present, self.columns)
        texts = []
        for name in self.columns:
            if name not in present:
                raise UserError(f"{path}: no column '{name}'; it has {', '.join(present)}")
            texts.append(f"c{present.index(name)}::VARCHAR AS {name}")
        rows = parquet_sql(path, numbered_columns(len(present)))
        return f"(SELECT {', '.join(texts)} FROM {rows})"

    def name(self, record: dict[str, Any]) -> str | None:
        identifier = record.get(self.item)
        return identifier if isinstance(identifier, str) else None


class Reader2014(AmazonReader):
    """Reader of the 2014 version, whose metadata lines are Python literals."""

    pattern = re.compile(rb"""['"]asin['"]: ?['"]([^'"]{1,64})['"]""")
    csv_columns = AmazonReader.columns
    # `categories` also stays in `extra`, as only one of its paths is used
    kept = frozenset({"asin", "title", "brand", "description", "imUrl"})

    def parse(self, line: bytes) -> dict[str, Any]:
        with suppress(orjson.JSONDecodeError):
            return require_dict(orjson.loads(line))
        if len(line) > MAX_LITERAL_BYTES:
            raise ValueError("not JSON, and too long for a Python literal")

        json_line = _swap_quotes(line)
        if json_line is not None:
            with suppress(orjson.JSONDecodeError):
                return require_dict(orjson.loads(json_line))
        return require_dict(_evaluate_literal(line))

    def product(self, record: dict[str, Any]) -> Product:
        paths = [as_list(path) for path in _of_type(list, record.get("categories"))]
        deepest = max(paths, key=len, default=[])  # the first of equally deep ones
        return super().product(record)._replace(categories=deepest)


def _swap_quotes(line: bytes) -> bytes | None:
    """Write a Python literal with the quotes of JSON, which is parsed twenty times as fast.

    None where the values could differ. Single quotes are paired in every second part, so that the
    other parts are inside double quotes.
    """
    parts = line.split(b'"')
    is_unpaired = any(part.count(b"'") % 2 for part in parts[::2])
    if is_unpaired or b"\\" in line or ONLY_JSON.search(line):
        return None
    parts[::2] = [part.replace(b"'", b'"') for part in parts[::2]]
    return b'"'.join(parts)


def _evaluate_literal(line: bytes) -> Any:
    """Parse a Python literal; literal_eval runs no code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ignore warnings about invalid escapes such as '\d'
            return ast.literal_eval(line.decode())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("not a Python literal in UTF-8") from None


class Reader2018(AmazonReader):
    """Reader of the 2018 version, whose fields may be lists or contain HTML or scripts."""

    kept = frozenset(
        {"asin", "title", "brand", "category", "description", "imageURL", "imageURLHighRes"}
    )
    item_columns = {
        **AmazonReader.item_columns,
        "categories": "category",
        "image_urls": "imageURL",
    }

    def product(self, record: dict[str, Any]) -> Product:
        product = super().product(record)
        title = "" if SCRIPT in product.title else product.title
        urls = as_list(record.get("imageURLHighRes")) + as_list(record.get("imageURL"))
        return product._replace(
            title=title,
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
        details = record.get("details")
        if isinstance(details, str) and details.startswith("{"):  # as in the Hub's Parquet
            details = json_object(details.encode())
        brand = as_text(details.get("Brand")) if isinstance(details, dict) else ""
        descriptions = as_list(record.get("features")) + as_list(record.get("description"))
        product = super().product(record)
        return product._replace(
            brand=brand or as_text(record.get("store")),
            description=" ".join(descriptions),
            image_urls=_image_addresses(record.get("images")),
        )


def _image_addresses(images: Any) -> list[str]:
    """Return the addresses of an item's images of 2023, the main image's first."""
    if isinstance(images, dict):  # the Hub's Parquet has a list per field
        rows = zip(*images.values(), strict=False)
        images = [dict(zip(images, values, strict=False)) for values in rows]

    entries = _of_type(dict, images)
    entries.sort(key=lambda entry: entry.get("variant") != "MAIN")  # stable
    addresses = []
    for entry in entries:
        for size in IMAGE_SIZES:
            addresses += as_list(entry.get(size))
    return list(dict.fromkeys(addresses))


def _of_type(kind: type, values: Any) -> list[Any]:
    """Return the values of a type in a list; nothing if it is no list."""
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, kind)]


READERS_OF_KINDS: dict[str, type[AmazonReader]] = {
    "amazon2014": Reader2014,
    "amazon2018": Reader2018,
    "amazon2023": Reader2023,
}


class AmazonSource(Downloaded):
    """Raw Amazon review data as published; `category: Baby` fills in the publisher's addresses."""

    kind: Literal["amazon2014", "amazon2018", "amazon2023"]
    # category as the publisher spells it; fills in `reviews` and `metadata` unless they are given
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    # which reviews `category` fills in: the published 5-core, or all, which the interactions stage
    # filters
    subset: Literal["5-core", "all"] = "5-core"
    reviews: Address | None = None  # reviews as JSON lines, or ratings as CSV
    # published split to use instead of `reviews`; its ids are kept, and metadata is matched by ASIN
    split: mmrec.PublishedSplit | None = None
    metadata: Address | None = None  # meta_*.json.gz; without it items have no text or image
    licence: ClassVar[Licence] = _licence(
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        "Amazon review data",
        "papers be cited (2014: McAuley et al., *Image-based recommendations on styles and "
        "substitutes*; 2018: Ni et al., *Justifying recommendations using distantly-labeled "
        "reviews and fine-grained aspects*)",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        is_known = isinstance(raw, dict) and raw.get("kind") in FOLDERS
        if not is_known or not isinstance(raw.get("category"), str):
            return raw
        if "subset" in raw and ("reviews" in raw or raw.get("split")):
            raise ValueError(
                "subset: applies to what `category` fills in, not to `reviews` or `split`"
            )

        paths = PATHS[raw["kind"]]
        subset = "all" if raw.get("subset") == "all" else "5-core"
        filled = {"reviews": paths[subset], "metadata": paths["metadata"]}
        if raw.get("split"):
            del filled["reviews"]

        addresses: dict[str, Any] = {}
        for role, path in filled.items():
            addresses[role] = f"{FOLDERS[raw['kind']]}/{path.format(raw['category'])}"
        return addresses | raw

    @model_validator(mode="after")
    def _one_source_of_interactions(self) -> Self:
        if bool(self.split) == bool(self.reviews):
            raise ValueError(
                "reviews: give either an address or `category`, or `split`, which has the "
                "interactions"
            )
        if self.split and not self.metadata:
            raise ValueError(
                "metadata: is required with `split`, which has neither texts nor images"
            )
        return self

    def reader(self) -> Reader:
        return READERS_OF_KINDS[self.kind]()

    def files(self) -> dict[str, str]:
        files = self.split.files() if self.split else {}
        if self.reviews:
            files["reviews"] = self.reviews
        if self.metadata:
            files["metadata"] = self.metadata
        return files | self.feature_files()

    @property
    def has_split(self) -> bool:
        return self.split is not None


class Amazon2023(AmazonSource):
    """Amazon's review data of 2023."""

    licence: ClassVar[Licence] = _licence(
        "https://amazon-reviews-2023.github.io/",
        "Amazon Reviews 2023 data",
        "paper be cited (Hou et al., *Bridging Language and Items for Retrieval and "
        "Recommendation*, arXiv 2403.03952)",
    )
