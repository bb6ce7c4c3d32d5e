"""A parameter file for local files: columns found by name, a core that leaves enough, encoders for what items have."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from alignrec.commands.estimate import LONGEST, Size
from alignrec.pipeline.config.base import known
from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.http.fetch import local_path
from alignrec.pipeline.interactions import source_split
from alignrec.pipeline.sources import download, inspect
from alignrec.pipeline.sources.delimited import column_names
from alignrec.pipeline.sources.lines import refuse_blank
from alignrec.pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource

CUTOFFS = (5, 10, 20, 50)
BATCH, TOKENS, STEPS, PASSES = 32, 64, 50, 2  # of mini, for minutes: batch size, tokens of a text, least steps, epochs
LARGE = 20_000  # items from which recommenders have their published settings, with a thousand epochs
QUICK = {"lr": 0.005, "epochs": 100, "patience": 8}  # of AlignRec on fewer items
MODELS, SEEDS = ["ease", "l3ae", "alignrec"], 2  # on fewer items: a minute of benchmark on two cores
TEACHERS = {"text": ["minilm", "tfidf"], "image": ["cnn", "descriptors"]}  # modality -> encoders that read it
HEAD = """# What `dvc repro` builds. Absent keys have their defaults, some of them by what the data has:
# which feature sets are judged, coded and released.
"""


class OwnData(NamedTuple):
    """What `alignrec new` found in local files."""

    sections: dict[str, Any]  # of the parameter file, without those of feature sets
    size: Size
    modalities: list[str]  # that items have
    seen: list[str]  # lines for the user


def read_files(
    name: str, interactions: Path, items: Path | None, images: str | None, columns: Sequence[str]
) -> OwnData:
    """Inspect local files. `images` are a folder, archive or pattern; `columns` are given as `role=name`."""
    flags = _parse_columns(columns, [path for path in (interactions, items) if path])
    rows = inspect.inspect_interactions(interactions, flags)
    item_rows = inspect.inspect_items(items, flags, rows.roles["item"]) if items else None
    shown = inspect.inspect_images(images, item_rows or rows) if images else {}
    source = _describe_source(rows, item_rows)
    # the core is chosen on all interactions, which DuckDB counts in seconds
    reader = Tabular(TabularSource.model_validate({**source, "columns": rows.renamed()}))
    left = source_split.measure_catalogue(reader, {"interactions": interactions})
    described = item_rows.described() if item_rows else ["no item file: items have neither text nor image"]
    kept = f"a {left.core}-core leaves" if left.core else "the split of the file has"
    counts = f"{kept} {left.users:,} users, {left.items:,} items, {left.interactions:,} interactions"
    has_images = bool(shown) or (item_rows is not None and "image_urls" in item_rows.roles)
    modalities = ["text"] * bool(items) + ["image"] * has_images
    core = {"user_core": left.core, "item_core": left.core} if left.core else {}
    sections = {"datasets": [name], "sources": {name: source}, "interactions": core, "images": shown}
    size = Size(left.users, left.items, left.interactions, LONGEST * bool(modalities), "", left.items)
    return OwnData(sections, size, modalities, [*rows.described(), *described, counts])


def as_yaml(found: OwnData, beit3: bool) -> str:
    """Return the text of a parameter file, with the feature sets that suit the data and the machine."""
    sections = found.sections | _content_sections(found.modalities, found.size.items, beit3)
    sections |= _judging_sections(sections["encode"]["encoders"], found, beit3)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 120}
    return HEAD + "".join(yaml.safe_dump({key: value}, **options) for key, value in sections.items() if value)


def _describe_source(interactions: inspect.Table, items: inspect.Table | None) -> dict[str, Any]:
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


def _content_sections(modalities: Sequence[str], items: int, beit3: bool) -> dict[str, Any]:
    """Return the sections of the stages that write feature sets, for items that have these modalities."""
    if not modalities:
        return {"encode": {"encoders": Encode().encoders}}  # which DVC needs; without items none runs
    encoders = Encode().encoders if len(modalities) == 2 else TEACHERS[modalities[0]]
    sections: dict[str, Any] = {"encode": {"encoders": encoders}, "combine": {"sets": {"linear": {}}}}
    if not beit3:
        return sections | {"beit3": {"sets": []}}
    steps = max(STEPS, math.ceil(PASSES * items / BATCH))
    pretrain = {"size": "mini", "steps": steps, "batch_size": BATCH, "max_tokens": TOKENS}
    if len(modalities) == 2:  # a set for each modality masked, by default
        return sections | {"pretrain": pretrain}
    return sections | {"pretrain": pretrain | {"distill_from": encoders}, "beit3": {"sets": ["beit3"]}}


def _judging_sections(encoders: Sequence[str], found: OwnData, beit3: bool) -> dict[str, Any]:
    benchmark: dict[str, Any] = {}
    sections: dict[str, Any] = {"benchmark": benchmark}
    if found.size.items < LARGE:
        sections["train"] = QUICK
        if found.modalities:
            rival = "tfidf" if "tfidf" in encoders else encoders[0]
            features = ["beit3"] * beit3 + ["linear", rival, "shuffled"]
            benchmark |= {"models": MODELS, "features": features, "seeds": SEEDS}
    if found.size.items < CUTOFFS[-1]:
        benchmark["ks"] = [k for k in CUTOFFS if k <= found.size.items] or [found.size.items]
        sections["probe"] = {"ks": benchmark["ks"]}
    return sections


def _parse_columns(columns: Sequence[str], files: Sequence[Path]) -> Mapping[str, str]:
    """Return role -> column as given; UserError for unknown ones, blank files, and names that read as addresses."""
    flags = {}
    for given in columns:
        role, equals, column = given.partition("=")
        if not (equals and column):
            raise UserError(f"--column {given}: write role=name, such as item=sku")
        known([role], dict.fromkeys([*OF_INTERACTIONS, *OF_ITEMS]), "--column")
        flags[role] = column
    # columns are looked up after the roles, so that a misspelt role is named first
    names = [column for path in files for column in column_names(path, flags.values())]
    for role, column in flags.items():
        known([column], names, f"--column {role}")
    stored = download.file_names({str(path): [str(path)] for path in files})
    for path in files:
        if path.suffix != ".parquet":
            refuse_blank(path)
        if local_path(str(path)) != path or stored[str(path)] != path.name:  # which stages take for an address
            raise UserError(f"{path}: reads as an address, not a path; rename it (letters, digits, . _ -)")
    return flags
