"""Inspect local files and write a parameter file that suits them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from alignrec.commands.arguments import parse_columns
from alignrec.commands.estimate import LONGEST, Size
from alignrec.pipeline.dataset import interactions as build
from alignrec.pipeline.dataset.split_sql import USER_TIME
from alignrec.pipeline.encoders.params import MULTILINGUAL, Encode
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import column_names, refuse_blank
from alignrec.pipeline.runtime.config import known
from alignrec.pipeline.sources import download, inspect
from alignrec.pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, TabularSource
from alignrec.pipeline.web.download import local_path

CUTOFFS = (5, 10, 20, 50)
# pre-training of size mini within minutes: batch size, and minimum steps; more items are passed over once. Shorter
# parts of texts for more passes made worse features
BATCH, STEPS = 32, 50
LARGE = 20_000  # number of items from which recommenders use their published settings, with a thousand epochs
QUICK = {"lr": 0.01, "epochs": 100, "patience": 5}  # settings of AlignRec for smaller catalogues
MODELS, SEEDS = ["ease", "l3ae", "alignrec"], 2  # for smaller catalogues: a benchmark of one minute on two cores
TEACHERS = {"text": ["minilm", "tfidf"], "image": ["cnn", "descriptors"]}  # modality -> its encoders
BY_TIME = f"timestamps found: split {USER_TIME}, each user's last fifth; published tables: interactions.protocol mmrec"
FEW = 20  # number of users or items below which a column is doubtful
HEAD = """# What `dvc repro` builds. Absent keys have their defaults, some of them by what the data has:
# which feature sets are judged, coded and released.
"""


class OwnData(NamedTuple):
    """Findings of `alignrec new` in local files."""

    sections: dict[str, Any]  # sections of the parameter file, except for those on feature sets
    size: Size
    modalities: list[str]
    seen: list[str]  # messages for the user


def read_files(name: str, interactions: Path, items: Path | None, images: str | None, pairs: Sequence[str]) -> OwnData:
    """Inspect local files; `images` is a folder, archive or pattern, each of `pairs` is `role=name` of a column."""
    flags = _parse_columns(pairs, [path for path in (interactions, items) if path])
    rows = inspect.inspect_table(interactions, flags)
    item_rows = inspect.inspect_table(items, flags, rows.roles["item"]) if items else None
    shown = inspect.inspect_images(images, item_rows or rows) if images else {}
    named = rows.renamed()
    if item_rows:
        named |= {role: column for role, column in item_rows.renamed().items() if role != "item"}
    source: dict[str, Any] = {"kind": "tabular", "interactions": str(interactions)}
    source |= ({"items": str(items)} if items else {}) | ({"columns": named} if named else {})
    if item_rows and item_rows.roles["item"] != named.get("item", "item"):
        source["item_columns"] = {"item": item_rows.roles["item"]}
    # choose the core from all interactions, which DuckDB counts in seconds
    counted = TabularSource.model_validate({**source, "columns": rows.renamed()})
    left = build.measure_catalogue(counted, {"interactions": interactions})
    described = item_rows.described() if item_rows else ["no item file: items have neither text nor image"]
    kept = f"a {left.core}-core leaves" if left.core else "the split of the file has"
    counts = f"{kept} {left.users:,} users, {left.items:,} items, {left.interactions:,} interactions"
    has_images = bool(shown) or (item_rows is not None and "image_urls" in item_rows.roles)
    modalities = ["text"] * bool(items) + ["image"] * has_images
    split: dict[str, Any] = {"user_core": left.core, "item_core": left.core} if left.core else {}
    seen = [*rows.described(), *described, counts]
    if item_rows and (language := inspect.name_language(item_rows)):
        unread = f"texts are in {language}, which MiniLM does not understand"
        seen.append(f"{unread}; `{MULTILINGUAL}`, listed in encode.encoders, does")
    for role, count in (("user", left.users), ("item", left.items)):
        if count < FEW:
            doubt = f"does '{rows.roles[role]}' hold {role}s? If not, name it: --column {role}=NAME"
            seen.append(f"warning: only {count} {role}s: {doubt}")
    if split and "timestamp" in rows.roles:
        split["protocol"] = USER_TIME
        seen.append(BY_TIME)
    sections = {"datasets": [name], "sources": {name: source}, "interactions": split, "images": shown}
    size = Size(left.users, left.items, left.interactions, LONGEST * bool(modalities), "")
    return OwnData(sections, size, modalities, seen)


def as_yaml(found: OwnData, beit3: bool) -> str:
    """Return a parameter file whose models, cutoffs and length of pre-training suit the size of the catalogue."""
    sections, items, given = dict(found.sections), found.size.items, found.modalities
    encoders = TEACHERS[given[0]] if len(given) == 1 else Encode().encoders
    sections["encode"] = {"encoders": encoders}  # DVC requires the key, even if nothing is encoded
    sections["combine"] = {"sets": {"linear": {}}} if given else {}
    if given and beit3:
        sections["pretrain"] = {"size": "mini", "steps": max(STEPS, math.ceil(items / BATCH)), "batch_size": BATCH}
        if len(given) == 1:  # the default sets include masked modalities, which need both
            sections["pretrain"]["distill_from"], sections["beit3"] = encoders, {"sets": ["beit3"]}
    elif given:
        sections["beit3"] = {"sets": []}
    sections["benchmark"] = {}
    if items < LARGE:
        sections["train"] = QUICK
        if given:
            rival = "tfidf" if "tfidf" in encoders else encoders[0]
            features = ["beit3"] * beit3 + ["linear", rival, "shuffled"]
            sections["benchmark"] |= {"models": MODELS, "features": features, "seeds": SEEDS}
    if items < CUTOFFS[-1]:
        ks = [k for k in CUTOFFS if k <= items] or [items]
        sections["benchmark"]["ks"], sections["probe"] = ks, {"ks": ks}
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 120}
    return HEAD + "".join(yaml.safe_dump({key: value}, **options) for key, value in sections.items() if value)


def _parse_columns(columns: Sequence[str], files: Sequence[Path]) -> Mapping[str, str]:
    """Return role -> column; UserError for unknown roles or columns, blank files and paths that look like addresses."""
    flags = parse_columns(columns, dict.fromkeys([*OF_INTERACTIONS, *OF_ITEMS]))
    # check columns after all roles, so that a misspelt role is reported first
    names = [column for path in files for column in column_names(path, flags.values())]
    for role, column in flags.items():
        known([column], names, f"--column {role}")
    stored = download.file_names({str(path): [str(path)] for path in files})
    for path in files:
        if path.suffix != ".parquet":
            refuse_blank(path)
        if local_path(str(path)) != path or stored[str(path)] != path.name:  # stages would mistake it for an address
            raise UserError(f"{path}: reads as an address, not a path; rename it (letters, digits, . _ -)")
    return flags
