"""Writes a parameter file for files that `inspect` has looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.layout import STAGES
from pipeline.sources.inspect import Ratings, Table

CUTOFFS = (5, 10, 20, 50)
CONTROLS = ["random", "shuffled", "constant"]


def text(
    name: str,
    interactions: Table,
    items: Table | None,
    images: Mapping[str, str | list[str]],
    ratings: Ratings | None,
    core: int,
    catalogue: int,
) -> str:
    """Return the whole of a parameter file, with every section that DVC wants.

    Args:
        name: of the dataset.
        interactions: the interactions file.
        items: the item file, if there is one.
        images: section `images`.
        ratings: what the ratings are, if there are any.
        core: least interactions of users and items; 0 where the split is the source's own.
        catalogue: items that are left.
    """
    sections: dict[str, Any] = {"datasets": [name], "sources": {name: _source(interactions, items)}}
    sections |= {section: {} for stage in STAGES.values() for section in stage.params if section != "source"}
    sections["interactions"] = {"user_core": core, "item_core": core} if core else {}
    sections["images"] = dict(images)
    sections |= _features(items is not None, bool(images) or (items is not None and "image_urls" in items.roles))
    if catalogue < CUTOFFS[-1]:
        ks = [k for k in CUTOFFS if k <= catalogue] or [catalogue]
        sections["benchmark"] = {**sections["benchmark"], "ks": ks}
        sections["probe"] = {**sections["probe"], "ks": ks}
    return _HEAD + "".join(_section(key, value, ratings) for key, value in sections.items())


_HEAD = """# What `dvc repro` builds, and how. Absent keys have the defaults that pipeline/config/ documents.
# DVC wants each section, if only an empty one.
"""


def _source(interactions: Table, items: Table | None) -> dict[str, Any]:
    columns = interactions.renamed()
    source = {"kind": "tabular", "interactions": str(interactions.path)}
    if items is None:
        return {**source, "columns": columns} if columns else source
    item = items.roles["item"]
    columns |= {role: column for role, column in items.renamed().items() if role != "item"}
    other = {"item_columns": {"item": item}} if item != columns.get("item", "item") else {}
    return {**source, "items": str(items.path), **({"columns": columns} if columns else {}), **other}


def _features(text: bool, image: bool) -> dict[str, Any]:
    """Return the sections that say which features are made, released and judged."""
    if text and image:
        return {}  # the defaults
    encoders = ["beit3", "minilm"] if text else ["beit3", "cnn"] if image else []
    names = encoders or CONTROLS[:1]
    return {
        "encode": {"encoders": encoders},
        "train": {"features": names[0]},
        "benchmark": {"features": [*encoders, *CONTROLS] if encoders else names},
        "publish": {"features": names},
    }


def _section(key: str, value: Any, ratings: Ratings | None) -> str:
    lines: str = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    if key == "interactions" and ratings is not None and ratings.explicit:
        lines += (
            f"# Ratings go from {ratings.low:g} to {ratings.high:g}; "
            f"the key min_rating: {ratings.threshold:g} there would keep only what users liked.\n"
        )
    return lines
