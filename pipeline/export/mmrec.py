"""MMRec's folder: one .inter file with the split in it, a .npy file a feature set, mapping files.

The pipeline's own source kind `mmrec` reads it back with the same ids and the same split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import yaml

from pipeline.export.content import ExportContent
from pipeline.export.text import write_tsv

INTER = ["userID", "itemID", "rating", "timestamp", "x_label"]


def write(content: ExportContent, folder: Path) -> str:
    """Write the folder; return how to read it."""
    name = content.name
    items = content.items
    if content.interactions is not None:
        columns = ["user_id", "item_id", "rating", "timestamp", "split"]
        write_tsv(folder / f"{name}.inter", content.interactions.select(columns), INTER)
    write_tsv(folder / "i_id_mapping.csv", items.select(["asin", "item_id"]), ["asin", "itemID"])
    if content.users is not None:
        write_tsv(folder / "u_id_mapping.csv", content.users.select(["user", "user_id"]), ["user_id", "userID"])
    (folder / "items.jsonl").write_bytes(b"".join(_item(row) for row in items.to_pylist()))
    for features in content.features:
        np.save(folder / f"{features}.npy", content.matrix(features), allow_pickle=False)
    return _how(content)


def _item(row: dict) -> bytes:
    urls = [row["image_url"]] if row["image_url"] else []
    named = {"itemID": row["item_id"], "asin": row["asin"], "title": row["title"], "brand": row["brand"]}
    more = {"categories": row["categories"], "description": row["description"], "imUrl": urls}
    return orjson.dumps(named | more) + b"\n"


def _how(content: ExportContent) -> str:
    files = "`vision_feature_file` or `text_feature_file` to one of the .npy files"
    if content.interactions is None:
        return f"""In MMRec: put the .npy files into the folder of your interactions, whose `itemID` must be the
numbers of `i_id_mapping.csv`, and set {files}.
If they are numbered otherwise, export again with `--order` and the mapping file of that folder.
"""
    source = {
        "kind": "mmrec",
        "interactions": f"{content.name}.inter",
        "items": "items.jsonl",
        "features": {name: f"{name}.npy" for name in content.features},
        "timestamps": content.clock(),
    }
    return (
        f"""In MMRec: put this folder under its data folder and set, in its configuration of the dataset,
`inter_file_name: {content.name}.inter` and {files}.
An unknown rating or timestamp is an empty cell.

In alignrec, with paths relative to where it runs:

```yaml
"""
        + yaml.safe_dump({"sources": {content.name: source}}, sort_keys=False)
        + "```\n"
    )
