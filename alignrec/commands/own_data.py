"""Inspect local files and write a parameter file that suits them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import yaml

from alignrec.commands.arguments import parse_columns
from alignrec.pipeline.dataset.catalogue import CatalogueSize, measure_catalogue
from alignrec.pipeline.dataset.split_sql import USER_TIME
from alignrec.pipeline.encoders.params import MULTILINGUAL, Encode
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names
from alignrec.pipeline.io.text import refuse_blank
from alignrec.pipeline.runtime.section import require_known
from alignrec.pipeline.sources import download, inspect
from alignrec.pipeline.sources.categories import CATEGORIES, KIND
from alignrec.pipeline.sources.inspect import ImageLocation, InspectedTable
from alignrec.pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource
from alignrec.pipeline.web.download import local_path

DEFAULT_CUTOFFS = (5, 10, 20, 50)
# pre-training of size mini: a budget, which ends early if the held-out losses no longer fall; more
# items are passed over once. Shorter parts of texts for more passes made worse features
PRETRAIN_BATCH_SIZE = 32
MIN_PRETRAIN_BUDGET = 400  # steps
PRETRAIN_PATIENCE = 3
# number of items from which recommenders use their published settings, with a thousand epochs
MANY_ITEMS = 20_000
# for smaller catalogues: settings of AlignRec, and a benchmark of one minute on two cores
QUICK_TRAINING = {"lr": 0.01, "epochs": 100, "patience": 5}
QUICK_MODELS = ["ease", "l3ae", "alignrec"]
QUICK_SEEDS = 2
SKIPPED_ENCODER = "tfidf"  # of projects without text and images
TEACHERS = {"text": ["minilm", "tfidf"], "image": ["cnn", "descriptors"]}  # modality -> encoders
BY_TIME = (
    f"timestamps found: split {USER_TIME}, each user's last fifth; "
    "published tables: interactions.protocol mmrec"
)
DOUBTFUL_COUNT = 20  # number of users or items below which a column is doubtful
HEAD = """\
# What `dvc repro` builds. Absent keys have their defaults, some of them by what the data has:
# which feature sets are judged, coded and released.
"""
YAML_OPTIONS: dict[str, Any] = {
    "sort_keys": False,
    "allow_unicode": True,
    "default_flow_style": None,
    "width": 120,
}


class Given(NamedTuple):
    """Files and options of `alignrec new`."""

    name: str  # of the dataset
    interactions: Path
    items: Path | None = None
    images: str | None = None  # folder, archive or pattern
    columns: Sequence[str] = ()  # `role=name` each
    interactions_only: bool = False  # whether items may have neither text nor image


class OwnData(NamedTuple):
    """Findings of `alignrec new` in local files."""

    sections: dict[str, Any]  # sections of the parameter file, except for those on feature sets
    items: int  # after filtering
    modalities: list[str]
    seen: list[str]  # messages for the user
    imported: Sequence[str] = ()  # feature sets that come with the source


def read_tables(given: Given) -> OwnData:
    """Inspect a file of interactions, and optionally one of items and images."""
    paths = [path for path in (given.interactions, given.items) if path]
    flags = _parse_columns(given.columns, paths)
    rows = inspect.inspect_table(given.interactions, flags)
    item_rows = None
    if given.items:
        item_rows = inspect.inspect_table(given.items, flags, rows.roles["item"])
    pictures = inspect.inspect_images(given.images, item_rows or rows) if given.images else None

    described = inspect.list_modalities(item_rows) if item_rows else []
    modalities = join_modalities(described, pictures)
    if not modalities and not given.interactions_only:
        raise UserError(_explain_lack(given, item_rows))

    seen = rows.described()
    if item_rows:
        seen += item_rows.described()
    if item_rows and not described:
        seen.append(f"{item_rows.path}: has no text and no image, so it is not used")
        item_rows = None
    if pictures and pictures.seen:
        seen.append(pictures.seen)

    # choose the core from all interactions, which DuckDB counts in seconds
    source = _describe_source(rows, item_rows)
    counted = TabularSource.model_validate({**source, "columns": rows.renamed()})
    if has_positions(counted, given.interactions):
        source["timestamps"] = "order"
        counted = counted.model_copy(update={"timestamps": "order"})
        seen.append(f"{rows.roles['timestamp']}: positions, not times, so `timestamps: order`")
    item_file = item_rows.path if item_rows else None
    left = measure_catalogue(counted, {"interactions": given.interactions}, item_file)
    split = _choose_split(rows, left)
    seen += _describe_catalogue(rows, left)
    if left.left_out:
        reason = "have too few interactions" if left.core else "are not in the split"
        seen.append(
            f"{left.left_out:,} items of {given.items} {reason}: "
            "`items: {all: true}` keeps them in features, graph, search and release"
        )
    if item_rows:
        seen += describe_language(item_rows)
    if "protocol" in split:
        seen.append(BY_TIME)

    sections = describe_sections(given.name, source, split, pictures)
    return OwnData(sections, left.items, modalities, seen)


def read_category(name: str, year: str, category: str) -> OwnData:
    """Describe an Amazon category from its published counts, before its files are downloaded."""
    published = CATEGORIES[year][category]
    core = published.estimate_core()
    counts = "of a size that is known once it is downloaded"
    if core:
        counts = str(core) if published.core else f"about {core}, estimated from published counts"
    source = {"kind": KIND.format(year), "category": category}
    sections = describe_sections(name, source, {}, None)
    items = core.items if core else MANY_ITEMS
    return OwnData(sections, items, ["text", "image"], [f"{category} of {year}: {counts}"])


def has_positions(source: TabularSource, path: Path) -> bool:
    try:
        return Tabular(source).has_positions(path)
    except duckdb.Error:  # CSV that is repaired row by row
        return False


def _choose_split(rows: InspectedTable, left: CatalogueSize) -> dict[str, Any]:
    if not left.core:
        return {}
    split: dict[str, Any] = {"user_core": left.core, "item_core": left.core}
    if "timestamp" in rows.roles:
        split["protocol"] = USER_TIME
    return split


def _describe_catalogue(rows: InspectedTable, left: CatalogueSize) -> list[str]:
    origin = f"a {left.core}-core leaves" if left.core else "the split of the file has"
    seen = [f"{origin} {count_catalogue(left)}"]
    for role, count in (("user", left.users), ("item", left.items)):
        if count < DOUBTFUL_COUNT:
            seen.append(
                f"warning: only {count} {role}s: "
                f"does '{rows.roles[role]}' hold {role}s? If not, name it: --column {role}=NAME"
            )

    return seen


def count_catalogue(left: CatalogueSize) -> str:
    return f"{left.users:,} users, {left.items:,} items, {left.interactions:,} interactions"


def _describe_source(rows: InspectedTable, item_rows: InspectedTable | None) -> dict[str, Any]:
    source: dict[str, Any] = {"kind": "tabular", "interactions": str(rows.path)}
    columns = rows.renamed()
    if item_rows:
        source["items"] = str(item_rows.path)
        of_items = item_rows.renamed()
        of_items.pop("item", None)
        columns |= of_items
    if columns:
        source["columns"] = columns
    if item_rows and item_rows.roles["item"] != columns.get("item", "item"):
        source["item_columns"] = {"item": item_rows.roles["item"]}

    return source


def _explain_lack(given: Given, item_rows: InspectedTable | None) -> str:
    without = "--interactions-only does without"
    if item_rows is None:
        return (
            f"{given.interactions}: interactions and no items; "
            f"give --items FILE with titles or images, or --images FOLDER; {without}"
        )

    columns = [name for name in item_rows.columns if name != item_rows.roles["item"]]
    return (
        f"{item_rows.path}: no text or image in {', '.join(columns) or 'its only column'}; name "
        "them by --column title=NAME (or brand, categories, description, image_urls), or give "
        f"--images FOLDER; {without}"
    )


def join_modalities(described: Sequence[str], pictures: ImageLocation | None) -> list[str]:
    """Add images that are found by the items' names to the modalities of an item file."""
    if "image" in described or pictures is None or pictures.pictured == 0:
        return list(described)
    return [*described, "image"]


def describe_language(items: InspectedTable) -> list[str]:
    language = inspect.name_language(items)
    if not language:
        return []
    unread = f"texts are in {language}, which MiniLM does not understand"
    return [f"{unread}; `{MULTILINGUAL}`, listed in encode.encoders, does"]


def describe_sections(
    name: str, source: Mapping[str, Any], split: Mapping[str, Any], pictures: ImageLocation | None
) -> dict[str, Any]:
    images = pictures.section if pictures else {}
    return {"datasets": [name], "sources": {name: source}, "interactions": split, "images": images}


def as_yaml(data: OwnData, beit3: bool) -> str:
    """Return a parameter file whose models, cutoffs and length of pre-training suit the size of the
    catalogue.
    """
    features, judged = _describe_features(data, beit3)
    sections = data.sections | features | {"benchmark": {}}
    if data.items < MANY_ITEMS:
        sections["train"] = QUICK_TRAINING
    if data.items < MANY_ITEMS and judged:
        sections["benchmark"] = {"models": QUICK_MODELS, "features": judged, "seeds": QUICK_SEEDS}
    if data.items < DEFAULT_CUTOFFS[-1]:
        ks = [k for k in DEFAULT_CUTOFFS if k <= data.items] or [data.items]
        sections["benchmark"]["ks"] = ks
        sections["probe"] = {"ks": ks}

    blocks = [
        yaml.safe_dump({key: value}, **YAML_OPTIONS) for key, value in sections.items() if value
    ]
    return HEAD + "".join(blocks)


def _describe_features(data: OwnData, beit3: bool) -> tuple[dict[str, Any], list[str]]:
    """Return sections on feature sets, and the sets to judge in a small catalogue."""
    encoders = list_encoders(data.modalities)
    # DVC needs an encoder to run; a dataset without content skips it
    sections: dict[str, Any] = {
        "encode": {"encoders": encoders or [SKIPPED_ENCODER], "reuse": True}
    }
    if not encoders and not data.imported:
        return sections, []

    sections["combine"] = {"sets": {"linear": {}}}
    simple = [name for name in encoders if name == "tfidf"] or encoders[:1]
    judged = ["linear", *data.imported, *simple, "shuffled"]
    if not encoders:
        return sections, judged
    if not beit3:
        sections["beit3"] = {"sets": []}
        return sections, judged

    pretrain = {
        "size": "mini",
        "steps": count_steps(data.items),
        "patience": PRETRAIN_PATIENCE,
        "batch_size": PRETRAIN_BATCH_SIZE,
    }
    sections["pretrain"] = pretrain
    if len(data.modalities) == 1:
        pretrain["distill_from"] = encoders
        # the default sets include masked modalities, which need both
        sections["beit3"] = {"sets": ["beit3"]}
    return sections, ["beit3", *judged]


def count_steps(items: int) -> int:
    """Return the steps that pre-training takes at most."""
    return max(MIN_PRETRAIN_BUDGET, math.ceil(items / PRETRAIN_BATCH_SIZE))


def _parse_columns(columns: Sequence[str], files: Sequence[Path]) -> Mapping[str, str]:
    """Return role -> column; UserError for unknown roles or columns, blank files and paths that
    look like addresses.
    """
    flags = parse_columns(columns, dict.fromkeys([*OF_INTERACTIONS, *OF_ITEMS]))
    # check columns after all roles, so that a misspelt role is reported first
    names = [column for path in files for column in column_names(path, flags.values())]
    for role, column in flags.items():
        require_known([column], names, f"--column {role}")
    check_paths(files)
    return flags


def list_encoders(modalities: Sequence[str]) -> list[str]:
    if not modalities:
        return []
    return TEACHERS[modalities[0]] if len(modalities) == 1 else Encode().encoders


def check_paths(files: Sequence[Path]) -> None:
    """Raise UserError for blank files, and for paths that stages would mistake for addresses."""
    stored = download.file_names({str(path): str(path) for path in files})
    for path in files:
        if path.suffix not in (".parquet", ".npy"):
            refuse_blank(path)
        if local_path(str(path)) != path or stored[str(path)] != path.name:
            raise UserError(
                f"{path}: reads as an address, not a path; rename it (letters, digits, . _ -)"
            )
