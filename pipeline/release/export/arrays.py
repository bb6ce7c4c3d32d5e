"""Exports of vectors as NumPy files: `npy`, and `cornac` for Reader and ImageModality.

Format of Cornac: https://cornac.readthedocs.io/en/stable/api_ref/data.html (Reader, ImageModality)
and eval_methods (from_splits)
"""

from pathlib import Path

import pyarrow.compute as pc

from alignrec.pipeline.release.export.content import (
    SPLITS,
    ExportContent,
    write_mappings,
    write_tsv,
)

FLAGS = ["item_id", "has_image", "has_text"]


def write_npy(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    content.save_vectors(folder)
    for name, table in content.features.items():
        write_tsv(folder / f"{name}.csv", table.select(FLAGS), FLAGS, ",")
    write_mappings(folder, content.items, content.users, ",")
    interactions = content.interactions
    if interactions is not None:
        write_tsv(folder / "interactions.csv", interactions, interactions.column_names, ",")

    usage = f"""`<set>.csv` says what went into each vector (empty: unknown); \
`items.csv` and `users.csv` give the
source's identifiers; `split` in `interactions.csv` is 0 train, 1 valid, 2 test.

```python
import numpy as np, pandas as pd
x, items = np.load("{content.first_set}.npy"), \
pd.read_csv("items.csv", dtype={{"asin": str}}, keep_default_na=False)
```
"""
    return usage, []


def write_cornac(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    columns = ["user_id", "item_id", "rating"]
    form = "UIR"
    if content.has_values("timestamp"):
        columns.append("timestamp")
        form = "UIRT"
    if content.interactions is not None:
        for number, split in enumerate(SPLITS):
            table = content.interactions_of(number)
            ratings = pc.fill_null(table["rating"], 1.0)  # Cornac needs a number
            table = table.set_column(table.column_names.index("rating"), "rating", ratings)
            write_tsv(folder / f"{split}.tsv", table.select(columns), None)
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)

    usage = f"""Ids are our numbers as text; `items.tsv` and `users.tsv` give the source's \
identifiers.

```python
import numpy as np
from cornac.data import ImageModality, Reader
from cornac.eval_methods import BaseMethod

x = np.load("{content.first_set}.npy")
item_image = ImageModality(features=x, ids=[str(i) for i in range(len(x))])
"""
    if content.interactions is None:
        return f"{usage}```\nBring interactions of your own.\n", []
    usage += f"""splits = ("train", "valid", "test")  # in which an unknown rating is 1
train, valid, test = (Reader().read(f"{{split}}.tsv", fmt="{form}", sep="\\t") for split in splits)
method = BaseMethod.from_splits(train, test, valid, fmt="{form}", item_image=item_image)
```
"""
    return usage, []
