"""`alignrec new`: writes a parameter file for local files or an Amazon category, and makes the folder a project."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline import io
from pipeline.config.base import known
from pipeline.encode.params import Encode
from pipeline.errors import UserError
from pipeline.http.fetch import local
from pipeline.interactions import repairs
from pipeline.interactions.repairs import Catalogue
from pipeline.sources import download, inspect
from pipeline.sources.amazon import KIND, SIZES, vintages
from pipeline.sources.lines import refuse_blank
from pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource
from stages import project

PARAMS = project.PARAMS
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
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
AMAZON = """# What `dvc repro` builds, and how: Amazon's {category} of {year}. Absent keys have their defaults.
datasets: [{name}]
sources:
  {name}: {{kind: {kind}, category: {category}}}
encode: {{encoders: [minilm, cnn, descriptors, tfidf]}}
"""


def check_target(name: str, to: Path, force: bool) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"invalid dataset name '{name}'; use up to 64 letters, digits, _ and -")
    if to.exists() and not force and not (to == PARAMS and project.is_shipped(Path(), PARAMS)):
        raise UserError(f"{to}: exists already; give another name with --to, or overwrite it with --force")


def write(name: str, text: str, to: Path) -> Iterator[str]:
    """Write the text of a parameter file; yield what was done and what comes next."""
    shipped = to == PARAMS and project.is_shipped(Path(), PARAMS)
    io.write_bytes(to, text.encode())
    yield f"wrote {to}" + (", in place of the clone's own, which git keeps" if shipped else "")
    if to == PARAMS:
        yield from project.begin(Path())
        yield "next: dvc repro; `alignrec plan` estimates how long it takes"
    else:
        yield f"next: alignrec download {name} --params {to}"


def describe_category(name: str, year: int, category: str | None) -> tuple[str, list[str]]:
    """Return the text of a parameter file for an Amazon category, and a line on its size."""
    known([str(year)], vintages(), "--amazon")
    published = vintages()[str(year)]["categories"]
    if category is None:
        raise UserError(f"--amazon {year}: give --category too, one of {', '.join(published)}")
    known([category], published, "--category")
    kind = KIND.format(year)
    size = SIZES.get((kind, category)) or "of a size that is known once it is downloaded"
    text = AMAZON.format(name=name, kind=kind, category=category, year=year)
    return text, [f"{category} of {year}: {size}"]


def describe_files(
    name: str, interactions: Path, items: Path | None, images: str | None, columns: Iterable[str]
) -> tuple[str, list[str]]:
    """Return the text of a parameter file for local files, and what was seen in them.

    `images` are a folder, archive or pattern; `columns` are given as `role=name`.
    """
    flags = _parse_columns(columns, list(filter(None, (interactions, items))))
    rows = inspect.interactions(interactions, flags)
    item_rows = inspect.items(items, flags, rows.roles["item"]) if items else None
    section, seen_images = inspect.images(images, item_rows or rows) if images else ({}, [])
    source = {"kind": "tabular", "interactions": str(interactions), "columns": rows.renamed()}
    left = repairs.measure_catalogue(Tabular(TabularSource.model_validate(source)), {"interactions": interactions})
    described = item_rows.described() if item_rows else ["no item file: items have neither text nor image"]
    seen = [*rows.described(), *described, *seen_images]
    kept = f"a {left.core}-core leaves" if left.core else "the split of the file has"
    seen.append(f"{kept} {left.users:,} users, {left.items:,} items, {left.interactions:,} interactions")
    beit3 = left.items <= BEIT3_UP_TO or _has_gpu()
    if not beit3:
        seen.append("BEiT3 is left out, as its pre-training takes long without a GPU: docs/pretraining.md")
    return _parameters(name, rows, item_rows, section, left, beit3), seen


def _parameters(
    name: str,
    interactions: inspect.Table,
    items: inspect.Table | None,
    images: Mapping[str, Any],
    left: Catalogue,
    beit3: bool,
) -> str:
    has_images = bool(images) or (items is not None and "image_urls" in items.roles)
    has_content = items is not None or has_images
    content = _content(items is not None, has_images, left.items, beit3)
    sections: dict[str, Any] = {
        "datasets": [name],
        "sources": {name: _source(interactions, items)},
        "interactions": {"user_core": left.core, "item_core": left.core} if left.core else {},
        "images": dict(images),
        **content,
        "train": QUICK if left.items < LARGE else {},
        "benchmark": {"budget": BUDGET},
    }
    if has_content and left.items < LARGE:
        both = items is not None and has_images
        judged = ["beit3"] * beit3 + ["minilm-cnn" if both else content["encode"]["encoders"][0], "linear"]
        sections["benchmark"] = {"models": MODELS, "features": [*judged, "shuffled"], "budget": BUDGET}
    if left.items < CUTOFFS[-1]:
        ks = [k for k in CUTOFFS if k <= left.items] or [left.items]
        sections["benchmark"]["ks"] = ks
        sections["probe"] = {"ks": ks}
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 120}
    return HEAD + "".join(yaml.safe_dump({key: value}, **options) for key, value in sections.items() if value)


def _source(interactions: inspect.Table, items: inspect.Table | None) -> dict[str, Any]:
    columns = interactions.renamed()
    source = {"kind": "tabular", "interactions": str(interactions.path)}
    if items is None:
        return {**source, "columns": columns} if columns else source
    item = items.roles["item"]
    columns |= {role: column for role, column in items.renamed().items() if role != "item"}
    other: dict[str, Any] = {"item_columns": {"item": item}} if item != columns.get("item", "item") else {}
    return {**source, "items": str(items.path), **({"columns": columns} if columns else {}), **other}


def _content(text: bool, image: bool, items: int, beit3: bool) -> dict[str, Any]:
    """Return the sections of the stages that write feature sets, for items that have these modalities."""
    both = text == image
    encoders = Encode().encoders if both else TEACHERS["text" if text else "image"]
    encode = {"encode": {"encoders": encoders}, "combine": {} if both else {"sets": {"linear": {}}}}
    if not (text or image):
        return {"encode": {"encoders": encoders}}
    if not beit3:
        return {**encode, "beit3": {"sets": []}}
    steps = max(STEPS, math.ceil(PASSES * items / BATCH))
    alone = {} if both else {"distill_from": encoders}
    pretrain = {"size": "mini", "steps": steps, "batch_size": BATCH, "max_tokens": TOKENS} | alone
    return {"encode": encode["encode"], "pretrain": pretrain, "combine": encode["combine"]} | (
        {} if both else {"beit3": {"sets": ["beit3"]}}
    )


def _has_gpu() -> bool:
    import torch  # takes seconds

    return torch.cuda.is_available()


def _parse_columns(columns: Iterable[str], files: list[Path]) -> Mapping[str, str]:
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
    stored = download.names({str(n): [str(path)] for n, path in enumerate(files)})
    for n, path in enumerate(files):
        if path.suffix != ".parquet":
            refuse_blank(path)
        if local(str(path)) != path or stored[str(n)] != path.name:  # which stages take for an address
            raise UserError(f"{path}: reads as an address, not a path; rename it (letters, digits, . _ -)")
    return flags
