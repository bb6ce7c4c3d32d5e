"""Hugging Face dataset: Parquet, and a card that lists each table as a configuration."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.export.content import SPLITS, ExportContent

NAMES = {"train": "train", "valid": "validation", "test": "test"}


def write(content: ExportContent, folder: Path) -> str:
    tables: dict[str, dict[str, pa.Table]] = {name: {"train": t} for name, t in content.features.items()}
    tables["items"] = {"train": content.items}
    if content.users is not None:
        tables["users"] = {"train": content.users}
    if content.interactions is not None:
        tables["interactions"] = {NAMES[s]: content.interactions_of(i) for i, s in enumerate(SPLITS)}
    for name, splits in tables.items():
        (folder / "data" / name).mkdir(parents=True)
        for split, table in splits.items():
            pq.write_table(table.replace_schema_metadata(), folder / "data" / name / f"{split}.parquet", **io.PARQUET)
    files = {n: [{"split": s, "path": f"data/{n}/{s}.parquet"} for s in splits] for n, splits in tables.items()}
    configs = [{"config_name": name, "data_files": of_table} for name, of_table in files.items()]
    block = yaml.safe_dump({"pretty_name": content.name, "configs": configs}, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{block}---\n\n", encoding="utf-8")
    name = next(iter(content.features), "items")
    return f"""```python
from pathlib import Path

from datasets import load_dataset

here = str(Path.cwd())  # a folder's whole path, or its name on the Hub: `datasets` takes no "."
features = load_dataset(here, "{name}", split="train").with_format("numpy")
```
"""
