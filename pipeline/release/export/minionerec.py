"""Export `minionerec`: token and sequence files of MiniOneRec, which LC-Rec takes too.

Format: AkaliKong/MiniOneRec, convert_dataset.py and data/amazon18_data_process.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from alignrec.pipeline.features.collisions import number_equal_codes
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export.content import ExportContent, write_mappings

# MiniOneRec's data.py reads the first three tokens of an item: codes of two levels, and a number
# that separates items of equal codes
CODE_LEVELS = 2
TOKENS = ("<a_{}>", "<b_{}>", "<c_{}>")


def write_minionerec(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    name = content.name
    ids, note = _item_ids(content)
    files: dict[str, dict[str, Any]] = {"index": {}, "item": {}}
    for codes, row in zip(ids.tolist(), content.items.to_pylist(), strict=True):
        item = str(row["item_id"])
        files["index"][item] = list(map(str.format, TOKENS, codes))
        files["item"][item] = _describe_item(item, row)
    if content.interactions is not None:
        files["inter"] = _user_sequences(content)
    for kind, value in files.items():
        (folder / f"{name}.{kind}.json").write_bytes(orjson.dumps(value))
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)

    notes = [note]
    untitled = sum(not title.strip() for title in content.items["title"].to_pylist())
    if untitled:
        notes.append(f"Items without a title, for which a stand-in says so: {untitled:,}.")
    sequences = "Items by user and time are in"
    if content.interactions is None:
        sequences = "Bring sequences of your own as"
    usage = f"""`{name}.index.json` has the three tokens of an item, which no other item has.
{sequences} `{name}.inter.json`.

LC-Rec takes this folder as `<path>/{name}`, and splits leave-one-out: `--dataset {name} \
--data_path <path>
--index_file .index.json`. MiniOneRec takes `--sid_index_path`, `--item_meta_path`, and \
sequences that are split.
"""
    return usage, notes


def _describe_item(item: str, row: dict[str, Any]) -> dict[str, str]:
    # otherwise all items without a title would share an empty one
    title = row["title"].strip() or f"[item {item} has no title]"
    texts = {"title": title, "description": row["description"], "brand": row["brand"]}
    plain = {key: " ".join(text.split()) for key, text in texts.items()}
    return plain | {"categories": ", ".join(row["categories"])}


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
    user = table["user_id"].to_numpy()
    item = table["item_id"].to_numpy()
    order = np.lexsort((table["timestamp"].to_numpy(), user))  # stable: ties keep the table's order

    sequences: dict[str, list[int]] = {}
    for user_id, item_id in zip(user[order].tolist(), item[order].tolist(), strict=True):
        sequences.setdefault(str(user_id), []).append(item_id)
    return sequences
