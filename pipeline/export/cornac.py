"""Cornac: user-item-rating(-time) files, and a .npy file per feature set."""

from pathlib import Path

import pyarrow.compute as pc

from alignrec.pipeline.export.content import SPLITS, ExportContent, write_mappings, write_tsv


# format: https://cornac.readthedocs.io/en/stable/api_ref/data.html (Reader, ImageModality), eval_methods (from_splits)
def write(content: ExportContent, folder: Path) -> str:
    timed = content.has_values("timestamp")
    if content.interactions is not None:
        columns = ["user_id", "item_id", "rating", *(["timestamp"] if timed else [])]
        for number, split in enumerate(SPLITS):
            table = content.interactions_of(number)
            rated = pc.fill_null(table["rating"], 1.0)  # Cornac needs a number
            table = table.set_column(table.column_names.index("rating"), "rating", rated)
            write_tsv(folder / f"{split}.tsv", table.select(columns), None)
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)
    form, features = "UIRT" if timed else "UIR", next(iter(content.features), "features")
    head = f"""Ids are our numbers as text; `items.tsv` and `users.tsv` give the source's identifiers.

```python
import numpy as np
from cornac.data import ImageModality, Reader
from cornac.eval_methods import BaseMethod

x = np.load("{features}.npy")
item_image = ImageModality(features=x, ids=[str(i) for i in range(len(x))])
"""
    if content.interactions is None:
        return f"{head}```\nBring interactions of your own.\n"
    return f"""{head}splits = ("train", "valid", "test")  # in which an unknown rating is 1
train, valid, test = (Reader().read(f"{{split}}.tsv", fmt="{form}", sep="\\t") for split in splits)
method = BaseMethod.from_splits(train, test, valid, fmt="{form}", item_image=item_image)
```
"""
