"""Export `hf`: Parquet files and a card for Hugging Face `datasets`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.release.export.content import ExportContent

HUB_SPLITS = ("train", "validation", "test")  # by number of the split

SplitTables = dict[str, pa.Table]


def write_hf(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    tables = _split_tables(content)
    configs = []
    for name, splits in tables.items():
        (folder / "data" / name).mkdir(parents=True)
        files = []
        for split, table in splits.items():
            path = f"data/{name}/{split}.parquet"
            pq.write_table(table.replace_schema_metadata(), folder / path, **io.PARQUET)
            files.append({"split": split, "path": path})
        configs.append({"config_name": name, "data_files": files})
    card = {"pretty_name": content.name, "configs": configs}
    block = yaml.safe_dump(card, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{block}---\n\n", encoding="utf-8")

    usage = f"""```python
from pathlib import Path

from datasets import load_dataset

here = str(Path.cwd())  # a folder's whole path, or its name on the Hub: `datasets` takes no "."
features = load_dataset(here, "{next(iter(tables))}", split="train").with_format("numpy")
```
"""
    return usage, []


def _split_tables(content: ExportContent) -> dict[str, SplitTables]:
    tables: dict[str, SplitTables] = {}
    for name, table in content.features.items():
        tables[name] = {"train": table}
    tables["items"] = {"train": content.items}
    if content.users is not None:
        tables["users"] = {"train": content.users}
    if content.interactions is not None:
        splits = enumerate(HUB_SPLITS)
        tables["interactions"] = {
            split: content.interactions_of(number) for number, split in splits
        }
    return tables
