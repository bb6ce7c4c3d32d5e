"""Writes a minimal parameter file for files that `inspect` has read."""

import math
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import yaml

from pipeline.sources.inspect import Ratings, Table

CUTOFFS = (5, 10, 20, 50)
BATCH, TOKENS, STEPS, PASSES = 32, 64, 50, 2  # of mini, for minutes: batch size, tokens of a text, least steps, epochs
LARGE = 20_000  # items from which recommenders have their published settings, with a thousand epochs
QUICK = {"lr": 0.005, "epochs": 100, "patience": 8}  # below
MODELS, BUDGET = ["ease", "l3ae", "lightgcn", "alignrec"], 2


def text(
    name: str,
    interactions: Table,
    items: Table | None,
    images: Mapping[str, str | list[str]],
    ratings: Ratings | None,
    core: int,
    catalogue: int,
    encoders: Sequence[str],
    beit3: bool = True,
) -> str:
    """Return a parameter file; `core` is 0 for the source's own split; without `beit3` its sections are comments."""
    pictured = bool(images) or (items is not None and "image_urls" in items.roles)
    content, small = _content(items is not None, pictured, catalogue, encoders, beit3), catalogue < LARGE
    sections: dict[str, Any] = {
        "datasets": [name],
        "sources": {name: _source(interactions, items)},
        "interactions": {"user_core": core, "item_core": core} if core else {},
        "images": dict(images),
        **content,
        "train": QUICK if small else {},
        "benchmark": {"budget": BUDGET},
    }
    if content and small:
        own = content["encode"]["encoders"]
        whole = [name for name in own if not name.endswith("-masked") and name not in ("tfidf", "descriptors")]
        sections["benchmark"] = {"models": MODELS, "features": [*whole, "shuffled"], "budget": BUDGET}
    if catalogue < CUTOFFS[-1]:
        ks = [k for k in CUTOFFS if k <= catalogue] or [catalogue]
        sections["benchmark"]["ks"] = ks
        sections["probe"] = {"ks": ks}
    written = {key: _section(key, value, ratings) for key, value in sections.items() if value}
    if not beit3:
        left_out = _content(items is not None, pictured, catalogue, encoders, True)
        lines = "".join(_section(key, left_out[key], None) for key in ("pretrain", "encode") if left_out.get(key))
        written["encode"] += "# with BEiT3, which takes long without a GPU:\n" + indent(lines, "# ")
    if items is not None and items.worded:
        written["sources"] += f"    # text: [{', '.join(items.worded)}] # would add these columns to the text\n"
    return _HEAD + "".join(written.values())


_HEAD = """# What `dvc repro` builds. Absent keys have their defaults, some of them by what the data has:
# which feature sets are judged, coded and released.
"""
NOTES = {
    "pretrain": "length of BEiT3's training and what teaches it; other keys have their defaults",
    "encoders": "the combination of the others that scores highest on validation",
    "train": "of AlignRec, for a small catalogue",
    "benchmark": "budget: settings that each model tries on validation for each feature set",
}  # section -> what its first line says


TEACHERS = {"text": ["minilm", "tfidf"], "image": ["cnn", "descriptors"]}
"""encoders at hand where items have one modality"""
CHOSEN = {"encoders": {"best": {"kind": "chosen"}}}


def _source(interactions: Table, items: Table | None) -> dict[str, Any]:
    columns = interactions.renamed()
    source = {"kind": "tabular", "interactions": str(interactions.path)}
    if items is None:
        return {**source, "columns": columns} if columns else source
    item = items.roles["item"]
    columns |= {role: column for role, column in items.renamed().items() if role != "item"}
    other: dict[str, Any] = {"item_columns": {"item": item}} if item != columns.get("item", "item") else {}
    other |= {"flat_categories": True} if items.flat else {}
    return {**source, "items": str(items.path), **({"columns": columns} if columns else {}), **other}


def _content(text: bool, image: bool, catalogue: int, encoders: Sequence[str], beit3: bool) -> dict[str, Any]:
    if not (text or image):
        return {}
    steps = max(STEPS, math.ceil(PASSES * catalogue / BATCH))
    pretrain: dict[str, Any] = {"size": "mini", "steps": steps, "batch_size": BATCH, "max_tokens": TOKENS}
    own = list(encoders)
    if not (text and image):
        teachers = TEACHERS["text" if text else "image"]
        pretrain["distill_from"] = teachers
        own = ["beit3", *teachers, "linear"]
    if not beit3:
        own = [name for name in own if name.split("-")[0] != "beit3"]
    return {**({"pretrain": pretrain} if beit3 else {}), "encode": {"encoders": [*own, "best"]}, **CHOSEN}


def _section(key: str, value: Any, ratings: Ratings | None) -> str:
    lines: str = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    if key in NOTES:
        first, _, rest = lines.partition("\n")
        lines = f"{first} # {NOTES[key]}\n{rest}"
    if key == "interactions" and ratings is not None and ratings.explicit:
        lines += (
            f"# Ratings go from {ratings.low:g} to {ratings.high:g}; "
            f"the key min_rating: {ratings.threshold:g} there would keep only what users liked.\n"
        )
    return lines
