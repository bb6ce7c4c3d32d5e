"""A parameter file for local files: columns found by name, a core that leaves enough, encoders for what items have."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alignrec.pipeline.config.base import known
from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.http.fetch import local
from alignrec.pipeline.interactions import source_split
from alignrec.pipeline.sources import download, inspect
from alignrec.pipeline.sources.lines import refuse_blank
from alignrec.pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource

BEIT3_UP_TO = 10_000  # items that BEiT3 learns in ten minutes without a GPU
CUTOFFS = (5, 10, 20, 50)
BATCH, TOKENS, STEPS, PASSES = 32, 64, 50, 2  # of mini, for minutes: batch size, tokens of a text, least steps, epochs
LARGE = 20_000  # items from which recommenders have their published settings, with a thousand epochs
QUICK = {"lr": 0.005, "epochs": 100, "patience": 8}  # below
MODELS, BUDGET = ["ease", "l3ae", "lightgcn", "alignrec"], 2
# modality -> encoders where items have only this one
TEACHERS = {"text": ["minilm", "tfidf"], "image": ["cnn", "descriptors"]}
HEAD = """# What `dvc repro` builds. Absent keys have their defaults, some of them by what the data has:
# which feature sets are judged, coded and released.
"""


def describe_files(
    name: str, interactions: Path, items: Path | None, images: str | None, columns: Sequence[str]
) -> tuple[str, list[str]]:
    """Return the text of a parameter file for local files, and what was seen in them.

    `images` are a folder, archive or pattern; `columns` are given as `role=name`.
    """
    flags = _parse_columns(columns, [path for path in (interactions, items) if path])
    rows = inspect.interactions(interactions, flags)
    item_rows = inspect.items(items, flags, rows.roles["item"]) if items else None
    shown = inspect.images(images, item_rows or rows) if images else {}
    source = _source(rows, item_rows)
    reader = Tabular(TabularSource.model_validate({**source, "columns": rows.renamed()}))
    left = source_split.measure_catalogue(reader, {"interactions": interactions})
    described = item_rows.described() if item_rows else ["no item file: items have neither text nor image"]
    kept = f"a {left.core}-core leaves" if left.core else "the split of the file has"
    counts = f"{kept} {left.users:,} users, {left.items:,} items, {left.interactions:,} interactions"
    seen = [*rows.described(), *described, counts]
    beit3 = left.items <= BEIT3_UP_TO or _has_gpu()
    if not beit3:
        seen.append("BEiT3 is left out, as its pre-training takes long without a GPU: docs/pretraining.md")
    has_images = bool(shown) or (item_rows is not None and "image_urls" in item_rows.roles)
    core = {"user_core": left.core, "item_core": left.core} if left.core else {}
    sections = {
        **{"datasets": [name], "sources": {name: source}, "interactions": core, "images": shown},
        **_content_sections(bool(items), has_images, left.items, beit3),
        "train": QUICK if left.items < LARGE else {},
    }
    judged = ["minilm-cnn"] if items and has_images else sections["encode"]["encoders"][:1]
    named = ["beit3"] * beit3 + [*judged, "linear", "shuffled"]
    sections |= _judging_sections(named if items or has_images else [], left.items)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 120}
    return HEAD + "".join(yaml.safe_dump({key: value}, **options) for key, value in sections.items() if value), seen


def _source(interactions: inspect.Table, items: inspect.Table | None) -> dict[str, Any]:
    columns = interactions.renamed()
    source: dict[str, Any] = {"kind": "tabular", "interactions": str(interactions.path)}
    if items is not None:
        source["items"] = str(items.path)
        columns |= {role: column for role, column in items.renamed().items() if role != "item"}
    if columns:
        source["columns"] = columns
    if items is not None and items.roles["item"] != columns.get("item", "item"):
        source["item_columns"] = {"item": items.roles["item"]}
    return source


def _content_sections(text: bool, image: bool, items: int, beit3: bool) -> dict[str, Any]:
    """Return the sections of the stages that write feature sets, for items that have these modalities."""
    if not (text or image):
        return {"encode": {"encoders": Encode().encoders}}  # which DVC needs; without items none runs
    both = text and image
    encoders = Encode().encoders if both else TEACHERS["text" if text else "image"]
    sections: dict[str, Any] = {"encode": {"encoders": encoders}}
    if beit3:
        steps = max(STEPS, math.ceil(PASSES * items / BATCH))
        sections["pretrain"] = {"size": "mini", "steps": steps, "batch_size": BATCH, "max_tokens": TOKENS}
        sections["pretrain"] |= {} if both else {"distill_from": encoders}
    if not (both and beit3):
        sections["beit3"] = {"sets": ["beit3"] * beit3}
    joined = {"minilm-cnn": {"kind": "concat", "of": ["minilm", "cnn"]}} if both else {}
    sections["combine"] = {"sets": joined | {"linear": {}}}
    return sections


def _judging_sections(features: Sequence[str], items: int) -> dict[str, Any]:
    small = {"models": MODELS, "features": features} if features and items < LARGE else {}
    if items >= CUTOFFS[-1]:
        return {"benchmark": {**small, "budget": BUDGET}}
    ks = [k for k in CUTOFFS if k <= items] or [items]
    return {"benchmark": {**small, "budget": BUDGET, "ks": ks}, "probe": {"ks": ks}}


def _has_gpu() -> bool:
    import torch  # takes seconds

    return torch.cuda.is_available()


def _parse_columns(columns: Sequence[str], files: Sequence[Path]) -> Mapping[str, str]:
    """Return role -> column as given; UserError for unknown ones, blank files, and names that read as addresses."""
    flags = {}
    for given in columns:
        role, equals, column = given.partition("=")
        if not (equals and column):
            raise UserError(f"--column {given}: write role=name, such as item=sku")
        known([role], dict.fromkeys([*OF_INTERACTIONS, *OF_ITEMS]), "--column")
        flags[role] = column
    names = [column for path in files for column in inspect.columns(path, flags.values())]
    for role, column in flags.items():
        known([column], names, f"--column {role}")
    stored = download.names({str(path): [str(path)] for path in files})
    for path in files:
        if path.suffix != ".parquet":
            refuse_blank(path)
        if local(str(path)) != path or stored[str(path)] != path.name:  # which stages take for an address
            raise UserError(f"{path}: reads as an address, not a path; rename it (letters, digits, . _ -)")
    return flags
