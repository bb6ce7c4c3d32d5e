"""RecBole: atomic files of a benchmark split, item fields, and one additional file per feature set."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from alignrec.pipeline.export.content import SPLITS, ExportContent, write_mappings, write_tsv


# format: https://recbole.io/docs/user_guide/data/atomic_files.html
def write(content: ExportContent, folder: Path) -> str:
    name = content.name
    data = folder / name
    data.mkdir()
    known = [c for c in ("rating", "timestamp") if content.has_values(c)]
    if content.interactions is not None:
        for number, split in enumerate(SPLITS):
            header = ["user_id:token", "item_id:token", *(f"{c}:float" for c in known)]
            rows = content.interactions_of(number).select(["user_id", "item_id", *known])
            write_tsv(data / f"{name}.{split}.inter", rows, header)
    paths = [" ".join("_".join(c.split()) for c in path) for path in content.items["categories"].to_pylist()]
    fields = content.items.select(["item_id", "asin", "title", "brand"])
    fields = fields.append_column("categories", pa.array(paths, pa.string()))
    header = ["item_id:token", "asin:token", "title:token_seq", "brand:token", "categories:token_seq"]
    write_tsv(data / f"{name}.item", fields, header)
    for features in content.features:
        with (data / f"{name}.{features}").open("w", encoding="utf-8") as f:
            f.write(f"{features}_id:token\t{features}_emb:float_seq\n")
            for i, row in enumerate(content.matrix(features)):  # a row at a time: text is five times the array
                f.write(f"{i}\t{' '.join(map('{:.9g}'.format, row.tolist()))}\n")
    write_mappings(folder, content.items, content.users)
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
        **({"TIME_FIELD": "timestamp"} if "timestamp" in known else {}),
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    first = next(iter(content.features), "features")
    missing = f"RecBole needs interactions: add your own as `{name}/{name}.inter` (user_id:token, item_id:token)."
    return f"""Tokens are our numbers; `items.tsv` and `users.tsv` give the source's identifiers.
{missing if content.interactions is None else ""}
```python
from recbole.config import Config
from recbole.data import create_dataset

config = Config(model="BPR", dataset="{name}", config_file_list=["{name}.yaml"], config_dict={{"data_path": "."}})
dataset = create_dataset(config)
features = dataset.get_preload_weight("{first}_id")    # row i belongs to RecBole's item i; row 0 is padding
```
"""
