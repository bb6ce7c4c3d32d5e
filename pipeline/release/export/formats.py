"""Export formats of other libraries: a function per format writes its files and returns the README's usage text.

Row i of a feature file is item i. MMRec's code is GPL and was not read; source kind `mmrec` reads its files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.features.collisions import number_equal_codes
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export.content import (
    SPLITS,
    ExportContent,
    write_mappings,
    write_tsv,
)
from alignrec.schemas import MODALITIES, variant

INTER = ["userID", "itemID", "rating", "timestamp", "x_label"]  # columns of MMRec's .inter
# MiniOneRec's data.py reads the first three tokens of an item: codes of two levels, and a number
# that separates items of equal codes
CODE_LEVELS = 2
TOKENS = ("<a_{}>", "<b_{}>", "<c_{}>")
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def write_npy(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    content.save_vectors(folder)
    for name, table in content.features.items():
        flags = table.select(["item_id", "has_image", "has_text"])
        write_tsv(folder / f"{name}.csv", flags, ["item_id", "has_image", "has_text"], ",")
    write_mappings(folder, content.items, content.users, ",")
    if content.interactions is not None:
        write_tsv(
            folder / "interactions.csv",
            content.interactions,
            content.interactions.column_names,
            ",",
        )
    name = next(iter(content.features), "features")
    return (
        f"""`<set>.csv` says what went into each vector (empty: unknown); `items.csv` and `users.csv` give the
source's identifiers; `split` in `interactions.csv` is 0 train, 1 valid, 2 test.

```python
import numpy as np, pandas as pd
x, items = np.load("{name}.npy"), pd.read_csv("items.csv", dtype={{"asin": str}}, keep_default_na=False)
```
""",
        [],
    )


def write_mmrec(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    name, items = content.name, content.items
    if content.interactions is not None:
        columns = ["user_id", "item_id", "rating", "timestamp", "split"]
        write_tsv(folder / f"{name}.inter", content.interactions.select(columns), INTER)
    write_tsv(folder / "i_id_mapping.csv", items.select(["asin", "item_id"]), ["asin", "itemID"])
    if content.users is not None:
        write_tsv(
            folder / "u_id_mapping.csv",
            content.users.select(["user", "user_id"]),
            ["user_id", "userID"],
        )
    fields = ["itemID", "asin", "title", "brand", "categories", "description", "imUrl"]
    urls = [[url] if url else [] for url in items["image_url"].to_pylist()]
    listed = pa.table(
        [*(items[c] for c in ("item_id", *fields[1:-1])), pa.array(urls, pa.list_(pa.string()))],
        fields,
    )
    (folder / "items.jsonl").write_bytes(
        b"".join(orjson.dumps(row) + b"\n" for row in listed.to_pylist())
    )
    content.save_vectors(folder)
    chosen = _modality_files(content)
    for modality, features in chosen.items():
        io.write_npy(folder / f"{modality}_feat.npy", content.matrix(features))
    files = {"image": "vision_feature_file", "text": "text_feature_file"}
    settings: dict[str, Any] = {
        **({} if content.interactions is None else {"inter_file_name": f"{name}.inter"}),
        "field_separator": "\t",
        "USER_ID_FIELD": INTER[0],
        "ITEM_ID_FIELD": INTER[1],
        "TIME_FIELD": INTER[3],
        "inter_splitting_label": INTER[4],
        **{files[modality]: f"{modality}_feat.npy" for modality in chosen},
    }
    (folder / f"{name}.yaml").write_text(
        yaml.safe_dump(settings, sort_keys=False), encoding="utf-8"
    )
    sets = {*chosen.values()}
    twice = "is both `image_feat.npy` and `text_feat.npy`, as no exported sets are of one modality each."
    return _describe_mmrec(content, chosen), [f"`{sets.pop()}` {twice}"] if len(sets) == 1 else []


def _modality_files(content: ExportContent) -> dict[str, str]:
    """Return the set of each modality: single-modality sets if both have one, otherwise the first set."""
    single: dict[str, str] = {}
    for name, table in content.features.items():
        used = [modality for modality in MODALITIES if pc.any(table[f"has_{modality}"]).as_py()]
        if len(used) == 1:
            single.setdefault(used[0], name)
    masked = [
        {"image": variant(name, "text"), "text": variant(name, "image")}
        for name in content.features
    ]
    first = {modality: name for name in list(content.features)[:1] for modality in MODALITIES}
    pairs = (
        pair
        for pair in [*masked, single]
        if len(pair) == 2 and content.features.keys() >= set(pair.values())
    )
    chosen = next(pairs, first)
    return {
        m: name if f"{m}_feat" not in content.features else f"{m}_feat"
        for m, name in chosen.items()
    }


def _describe_mmrec(content: ExportContent, chosen: dict[str, str]) -> str:
    held = ", ".join(
        f"`{modality}_feat.npy` is `{features}`" for modality, features in chosen.items()
    )
    both = held and f"MMRec wants a file of images and one of texts: {held}."
    if content.interactions is None:
        return f"""In MMRec: put the .npy files into the folder of your interactions, numbered as in `i_id_mapping.csv`
(else export with `--order`), and their names, as in `{content.name}.yaml`, into its settings. {both}
"""
    source = {
        "kind": "mmrec",
        "interactions": f"{content.name}.inter",
        "items": "items.jsonl",
        "features": {name: f"{name}.npy" for name in content.features},
        "timestamps": content.clock(),
    }
    settings = yaml.safe_dump({"sources": {content.name: source}}, sort_keys=False)
    return f"""In MMRec: put this folder as `{content.name}` into its data folder, and `{content.name}.yaml` into
`configs/dataset`. {both}

In alignrec, with paths relative to where it runs:

```yaml
{settings}```
"""


# format: https://recbole.io/docs/user_guide/data/atomic_files.html
def write_recbole(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    name = content.name
    data = folder / name
    data.mkdir()
    known = [c for c in ("rating", "timestamp") if content.has_values(c)]
    if content.interactions is not None:
        for number, split in enumerate(SPLITS):
            header = ["user_id:token", "item_id:token", *(f"{c}:float" for c in known)]
            rows = content.interactions_of(number).select(["user_id", "item_id", *known])
            write_tsv(data / f"{name}.{split}.inter", rows, header)
    paths = [
        " ".join("_".join(c.split()) for c in path)
        for path in content.items["categories"].to_pylist()
    ]
    fields = content.items.select(["item_id", "asin", "title", "brand"])
    fields = fields.append_column("categories", pa.array(paths, pa.string()))
    header = [
        "item_id:token",
        "asin:token",
        "title:token_seq",
        "brand:token",
        "categories:token_seq",
    ]
    write_tsv(data / f"{name}.item", fields, header)
    for features in content.features:
        with (data / f"{name}.{features}").open("w", encoding="utf-8") as f:
            f.write(f"{features}_id:token\t{features}_emb:float_seq\n")
            for i, row in enumerate(
                content.matrix(features)
            ):  # by row, as text takes five times the array's memory
                f.write(f"{i}\t{' '.join(map('{:.9g}'.format, row.tolist()))}\n")
    write_mappings(folder, content.items, content.users)
    settings = _recbole_settings(content, known)
    (folder / f"{name}.yaml").write_text(
        yaml.safe_dump(settings, sort_keys=False), encoding="utf-8"
    )
    first = next(iter(content.features), "features")
    missing = f"RecBole needs interactions: add your own as `{name}/{name}.inter` (user_id:token, item_id:token)."
    return (
        f"""Tokens are our numbers; `items.tsv` and `users.tsv` give the source's identifiers.
{missing if content.interactions is None else ""}
```python
from recbole.config import Config
from recbole.data import create_dataset

config = Config(model="BPR", dataset="{name}", config_file_list=["{name}.yaml"], config_dict={{"data_path": "."}})
dataset = create_dataset(config)
features = dataset.get_preload_weight("{first}_id")    # row i belongs to RecBole's item i; row 0 is padding
```
""",
        [],
    )


def _recbole_settings(content: ExportContent, known: Sequence[str]) -> dict[str, Any]:
    sets = list(content.features)
    loaded = {"inter": ["user_id", "item_id", *known], "item": ["item_id", "title", "categories"]}
    return {
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


# format: https://cornac.readthedocs.io/en/stable/api_ref/data.html (Reader, ImageModality), eval_methods (from_splits)
def write_cornac(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
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
        return f"{head}```\nBring interactions of your own.\n", []
    return (
        f"""{head}splits = ("train", "valid", "test")  # in which an unknown rating is 1
train, valid, test = (Reader().read(f"{{split}}.tsv", fmt="{form}", sep="\\t") for split in splits)
method = BaseMethod.from_splits(train, test, valid, fmt="{form}", item_image=item_image)
```
""",
        [],
    )


def write_hf(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    tables: dict[str, dict[str, pa.Table]] = {
        name: {"train": t} for name, t in content.features.items()
    }
    tables["items"] = {"train": content.items}
    if content.users is not None:
        tables["users"] = {"train": content.users}
    if content.interactions is not None:
        tables["interactions"] = {
            HUB_SPLITS[s]: content.interactions_of(i) for i, s in enumerate(SPLITS)
        }
    for name, splits in tables.items():
        (folder / "data" / name).mkdir(parents=True)
        for split, table in splits.items():
            pq.write_table(
                table.replace_schema_metadata(),
                folder / "data" / name / f"{split}.parquet",
                **io.PARQUET,
            )
    files = {
        n: [{"split": s, "path": f"data/{n}/{s}.parquet"} for s in splits]
        for n, splits in tables.items()
    }
    configs = [{"config_name": name, "data_files": of_table} for name, of_table in files.items()]
    block = yaml.safe_dump({"pretty_name": content.name, "configs": configs}, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{block}---\n\n", encoding="utf-8")
    name = next(iter(content.features), "items")
    return (
        f"""```python
from pathlib import Path

from datasets import load_dataset

here = str(Path.cwd())  # a folder's whole path, or its name on the Hub: `datasets` takes no "."
features = load_dataset(here, "{name}", split="train").with_format("numpy")
```
""",
        [],
    )


# format: AkaliKong/MiniOneRec, convert_dataset.py and data/amazon18_data_process.py
def write_minionerec(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    name = content.name
    ids, note = _item_ids(content)
    files: dict[str, dict[str, Any]] = {"index": {}, "item": {}}
    for codes, row in zip(ids.tolist(), content.items.to_pylist(), strict=True):
        item, title = str(row["item_id"]), row["title"].strip()
        files["index"][item] = list(map(str.format, TOKENS, codes))
        # otherwise all items without a title would share an empty one
        texts = {"title": title or f"[item {item} has no title]"} | {
            c: row[c] for c in ("description", "brand")
        }
        plain = {key: " ".join(text.split()) for key, text in texts.items()}
        files["item"][item] = plain | {"categories": ", ".join(row["categories"])}
    if content.interactions is not None:
        files["inter"] = _user_sequences(content)
    for kind, value in files.items():
        (folder / f"{name}.{kind}.json").write_bytes(orjson.dumps(value))
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)
    untitled = sum(not title.strip() for title in content.items["title"].to_pylist())
    notes = [note]
    if untitled:
        notes.append(f"Items without a title, for which a stand-in says so: {untitled:,}.")
    sequences = (
        "Bring sequences of your own as"
        if content.interactions is None
        else "Items by user and time are in"
    )
    usage = f"""`{name}.index.json` has the three tokens of an item, which no other item has.
{sequences} `{name}.inter.json`.

LC-Rec takes this folder as `<path>/{name}`, and splits leave-one-out: `--dataset {name} --data_path <path>
--index_file .index.json`. MiniOneRec takes `--sid_index_path`, `--item_meta_path`, and sequences that are split.
"""
    return usage, notes


def _item_ids(content: ExportContent) -> tuple[np.ndarray, str]:
    """Return int32 [I, 3], the numbers in the tokens of each item, and a note on them."""
    assert content.codes is not None
    codes = np.array(content.codes["codes"].to_pylist(), np.int32).reshape(len(content.codes), -1)
    levels = codes.shape[1]
    if levels < CODE_LEVELS:
        raise UserError(
            f"{content.name}: minionerec needs semantic IDs of {CODE_LEVELS} levels or more, and "
            f"these have {levels}; set semantic_ids.levels and run "
            f"`alignrec semantic_ids {content.name}`"
        )

    codes = codes[:, :CODE_LEVELS]
    suffix = number_equal_codes(codes)
    ids = np.column_stack([codes, suffix])
    note = (
        f"Tokens: codes of the first {CODE_LEVELS} of {levels} levels, and a third token "
        f"({suffix.max() + 1:,} values) that separates items of equal codes."
    )
    return ids, note


def _user_sequences(content: ExportContent) -> dict[str, list[int]]:
    table = content.interactions
    assert table is not None
    if content.clock() == "none" or table["timestamp"].null_count:
        raise UserError(
            f"{content.name}: sequences need an order, and the interactions have no timestamps"
        )
    user, item = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    order = np.lexsort((table["timestamp"].to_numpy(), user))  # stable: ties keep the table's order
    sequences: dict[str, list[int]] = {}
    for owner, bought in zip(user[order].tolist(), item[order].tolist(), strict=True):
        sequences.setdefault(str(owner), []).append(bought)
    return sequences
