"""Feature files that come with a source: their parameters, their roles, and the formats of their names."""

import re
from typing import Annotated

from pydantic import BeforeValidator

from pipeline.config.base import Mirrors, Positive, Section

FEATURE = "feature:"  # a feature file's role is this and the feature set's name
ROWS = "feature_rows"  # role of the mapping file that says which item each row of a file without identifiers is

NAMES = (
    *("asin", "item_id", "item", "parent_asin", "sku", "movie_id", "product_id", "product", "book_id", "article_id"),
    *("iid", "id"),
)  # columns that identify items, whatever their case and signs between words; see `rank`
ENDINGS = {
    ".npy": "npy",
    ".npz": "zip",
    ".zip": "zip",
    ".pt": "torch",
    ".pth": "torch",
    ".parquet": "parquet",
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz"), "json"),
    ".b": "records",
    ".b.gz": "records",
}  # ending of a name -> format, a name in pipeline/vectors/registry.py
ORDERED = ("npy", "raw")  # formats whose rows never say which item they are
FOLDER = "folder"  # format of a name without a known ending
HUB = "hf://"


def plain(column: str) -> str:
    return re.sub(r"[^a-z0-9]", "", column.lower())


def rank(column: str) -> int:
    """Return the place in NAMES of a column that identifies items, -1 for any other."""
    return PLAIN.index(name) if (name := plain(column)) in PLAIN else -1


PLAIN = [plain(name) for name in NAMES]


def format_of(name: str, dim: int | None = None) -> str:
    """Return the format of a file's name; without a known ending it is that of a folder, or raw if `dim` is given."""
    if dim is not None:
        return "raw"
    if name.startswith(HUB):
        return "parquet"
    return next((kind for ending, kind in ENDINGS.items() if name.lower().endswith(ending)), FOLDER)


class FeatureFile(Section):
    """A feature file; without `dim`, only a path or an address."""

    file: Mirrors
    """.npy, .npz, .pt, .parquet, JSON, image_features_*.b, a folder, or hf://datasets/owner/name"""
    dim: Positive | None = None
    """numbers of a row, for raw float32 without a header"""


PathOrFile = Annotated[
    FeatureFile, BeforeValidator(lambda raw: raw if isinstance(raw, (dict, FeatureFile)) else {"file": raw})
]
