"""Export `npy`: NumPy files and CSV tables; row i of a feature file is item i."""

from pathlib import Path

from alignrec.pipeline.release.export.content import ExportContent, write_mappings, write_tsv

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
