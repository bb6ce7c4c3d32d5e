"""Export `recbole`: atomic files, with features to preload.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec.pipeline.release.export.content import (
    SPLITS,
    ExportContent,
    write_mappings,
    write_tsv,
    write_yaml,
)

ITEM_HEADER = [
    "item_id:token",
    "asin:token",
    "title:token_seq",
    "brand:token",
    "categories:token_seq",
]
MISSING = (
    "RecBole needs interactions: add your own as `{name}/{name}.inter` "
    "(user_id:token, item_id:token)."
)


def write_recbole(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    name = content.name
    data = folder / name
    data.mkdir()
    measured = [column for column in ("rating", "timestamp") if content.has_values(column)]
    if content.interactions is not None:
        _write_interactions(content, data, measured)
    _write_items(content, data)
    for features in content.features:
        _write_features(data / f"{name}.{features}", features, content.matrix(features))
    write_mappings(folder, content.items, content.users)
    write_yaml(folder / f"{name}.yaml", _make_settings(content, measured))

    usage = f"""Tokens are our numbers; `items.tsv` and `users.tsv` give the source's identifiers.
{MISSING.format(name=name) if content.interactions is None else ""}
```python
from recbole.config import Config
from recbole.data import create_dataset

config = Config(model="BPR", dataset="{name}", config_file_list=["{name}.yaml"], \
config_dict={{"data_path": "."}})
dataset = create_dataset(config)
features = dataset.get_preload_weight("{content.first_set}_id")    \
# row i belongs to RecBole's item i; row 0 is padding
```
"""
    return usage, []


def _write_interactions(content: ExportContent, data: Path, measured: Sequence[str]) -> None:
    header = ["user_id:token", "item_id:token", *(f"{column}:float" for column in measured)]
    for number, split in enumerate(SPLITS):
        rows = content.interactions_of(number).select(["user_id", "item_id", *measured])
        write_tsv(data / f"{content.name}.{split}.inter", rows, header)


def _write_items(content: ExportContent, data: Path) -> None:
    sequences = []
    for path in content.items["categories"].to_pylist():
        words = ["_".join(category.split()) for category in path]
        sequences.append(" ".join(words))
    items = content.items.select(["item_id", "asin", "title", "brand"])
    items = items.append_column("categories", pa.array(sequences, pa.string()))
    write_tsv(data / f"{content.name}.item", items, ITEM_HEADER)


def _write_features(path: Path, name: str, matrix: np.ndarray) -> None:
    with path.open("w", encoding="utf-8") as f:
        f.write(f"{name}_id:token\t{name}_emb:float_seq\n")
        for item, row in enumerate(matrix):  # by row, as text takes five times the array's memory
            values = " ".join(map("{:.9g}".format, row.tolist()))
            f.write(f"{item}\t{values}\n")


def _make_settings(content: ExportContent, measured: Sequence[str]) -> dict[str, Any]:
    ids = {name: f"{name}_id" for name in content.features}
    vectors = {name: f"{name}_emb" for name in content.features}
    columns = {
        "inter": ["user_id", "item_id", *measured],
        "item": ["item_id", "title", "categories"],
    }
    settings: dict[str, Any] = {
        "field_separator": "\t",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": columns | {name: [ids[name], vectors[name]] for name in ids},
    }
    if content.interactions is not None:
        settings["benchmark_filename"] = list(SPLITS)
    settings["additional_feat_suffix"] = list(ids)
    settings["alias_of_item_id"] = list(ids.values())
    settings["preload_weight"] = {ids[name]: vectors[name] for name in ids}
    if "timestamp" in measured:
        settings["TIME_FIELD"] = "timestamp"
    return settings
