"""Targets by name, made on look-up, as some take seconds."""

import importlib

from alignrec.pipeline.harness.config import nearest
from alignrec.pipeline.io.errors import UserError
from tests.hostile.fuzz.target import Target

AREAS = {
    "products": [
        *("json-object", "literal", "product-amazon2014", "product-amazon2018", "product-amazon2023", "product-mmrec"),
        *("product-tabular", "item-table", "item-file", "columns", "keys", "packed-lines", "lines", "text", "printed"),
        "path-or-address",
    ],
    "interactions": [
        *("ratings-csv", "ratings-json", "ratings-parquet", "ratings-amazon", "ratings-inter", "date", "k-core"),
        *("inspect", "row-order", "itemid", "split-mapping", "image-features"),
    ],
    "arrays": [
        *("npy", "vectors-json", "vectors-zip", "pth", "checkpoint", "safetensors", "compared-parquet"),
        *("tokenizer", "parameters"),
    ],
    "images": ["image", "exif", "zip"],
    "network": [
        *("retry-after", "address", "download-address", "release-address", "answer", "content-range", "redirect"),
        "image-answer",
    ],
    "releases": ["manifest", "signature", "any-file"],
}
"""module -> its targets"""
TARGETS = {name: area for area, names in AREAS.items() for name in names}


def targets(area: str) -> dict[str, Target]:
    module = importlib.import_module(f"tests.hostile.fuzz.{area}")
    named: dict[str, Target] = module.targets()
    return named


def check(name: str) -> None:
    if name not in TARGETS:
        raise UserError(f"no fuzz target '{name}'{nearest(name, TARGETS)}")


def target(name: str) -> Target:
    return targets(TARGETS[name])[name]
