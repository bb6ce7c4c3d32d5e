"""Plain files for NumPy and pandas: a .npy file per feature set, and CSV."""

from pathlib import Path

from alignrec.pipeline.export.content import ExportContent, write_mappings, write_tsv


def write(content: ExportContent, folder: Path) -> str:
    content.save_vectors(folder)
    for name, table in content.features.items():
        flags = table.select(["item_id", "has_image", "has_text"])
        write_tsv(folder / f"{name}.csv", flags, ["item_id", "has_image", "has_text"], ",")
    write_mappings(folder, content.items, content.users, ",")
    if content.interactions is not None:
        write_tsv(folder / "interactions.csv", content.interactions, content.interactions.column_names, ",")
    name = next(iter(content.features), "features")
    return f"""`<set>.csv` says what went into each vector (empty: unknown); `items.csv` and `users.csv` give the
source's identifiers; `split` in `interactions.csv` is 0 train, 1 valid, 2 test.

```python
import numpy as np, pandas as pd
x, items = np.load("{name}.npy"), pd.read_csv("items.csv", dtype={{"asin": str}}, keep_default_na=False)
```
"""
