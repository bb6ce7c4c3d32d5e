"""RecBole's atomic files: a benchmark split, item fields, and one additional atomic file a feature set.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html and user_guide/config/data_settings.html
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipeline.export.content import SPLITS, ExportContent, write_mappings, write_tsv


def write(content: ExportContent, folder: Path) -> str:
    name = content.name
    data = folder / name
    data.mkdir()
    known = [c for c in ("rating", "timestamp") if content.known(c)]
    if content.interactions is not None:
        for number, split in enumerate(SPLITS):
            header = ["user_id:token", "item_id:token", *(f"{c}:float" for c in known)]
            write_tsv(
                data / f"{name}.{split}.inter", content.split(number).select(["user_id", "item_id", *known]), header
            )
    header = ["item_id:token", "asin:token", "title:token_seq", "brand:token", "categories:token_seq"]
    write_tsv(data / f"{name}.item", _item_fields(content.items), header)
    for features in content.features:
        _vectors(data / f"{name}.{features}", features, content.matrix(features))
    write_mappings(folder, content.items, content.users)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(_settings(content, known), sort_keys=False), encoding="utf-8")
    return _how(content)


def _item_fields(items: pa.Table) -> pa.Table:
    paths = [" ".join("_".join(c.split()) for c in path) for path in items["categories"].to_pylist()]
    return items.select(["item_id", "asin", "title", "brand"]).append_column("categories", pa.array(paths, pa.string()))


def _vectors(path: Path, features: str, x: np.ndarray) -> None:
    with path.open("w", encoding="utf-8") as f:
        f.write(f"{features}_id:token\t{features}_emb:float_seq\n")
        for i, row in enumerate(x):  # a row at a time: text is five times the array
            f.write(f"{i}\t{' '.join(map('{:.9g}'.format, row.tolist()))}\n")


def _settings(content: ExportContent, known: list[str]) -> dict[str, Any]:
    sets = list(content.features)
    loaded = {"inter": ["user_id", "item_id", *known], "item": ["item_id", "title", "categories"]}
    settings: dict[str, Any] = {
        "field_separator": "\t",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": loaded | {s: [f"{s}_id", f"{s}_emb"] for s in sets},
        **({} if content.interactions is None else {"benchmark_filename": list(SPLITS)}),
        "additional_feat_suffix": sets,
        "alias_of_item_id": [f"{s}_id" for s in sets],
        "preload_weight": {f"{s}_id": f"{s}_emb" for s in sets},
    }
    return settings | ({"TIME_FIELD": "timestamp"} if "timestamp" in known else {})


def _how(content: ExportContent) -> str:
    name, first = content.name, next(iter(content.features), "features")
    missing = (
        ""
        if content.interactions is not None
        else f"""
RecBole needs interactions: add your own as `{name}/{name}.inter`, with the columns user_id:token and item_id:token.
"""
    )
    return f"""Tokens are our numbers; `items.tsv` and `users.tsv` give the source's identifiers.
{missing}
```python
from recbole.config import Config
from recbole.data import create_dataset

config = Config(model="BPR", dataset="{name}", config_file_list=["{name}.yaml"], config_dict={{"data_path": "."}})
dataset = create_dataset(config)
features = dataset.get_preload_weight("{first}_id")    # row i belongs to RecBole's item i; row 0 is padding
```
"""
